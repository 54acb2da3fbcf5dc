import type { ButtonHTMLAttributes } from 'react';

import { Icon, type IconName } from './Icon';
import { keyNames } from './keys';

type Native = Omit<ButtonHTMLAttributes<HTMLButtonElement>, 'children' | 'className'>;

interface WordButton extends Native {
  readonly word: string;
  readonly icon?: IconName;
  readonly look?: 'primary' | 'quiet' | 'outline';
}

/** A button with a word, which is its name. */
export function Button({ word, icon, look = 'quiet', ...rest }: WordButton) {
  return (
    <button type="button" className={`button nodrag ${look} ${icon === undefined ? '' : 'with-icon'}`} {...rest}>
      {icon !== undefined && <Icon name={icon} size={16} />}
      <span>{word}</span>
    </button>
  );
}

interface IconButtonProps extends Native {
  readonly name: string;
  readonly icon: IconName;
  /** The key that does the same, shown in the tip. */
  readonly hotkey?: string;
}

/** A button with an icon only; its name shows as a tip. */
export function IconButton({ name, icon, hotkey, ...rest }: IconButtonProps) {
  return (
    <button type="button" className="icon-button nodrag" aria-label={name} {...rest}>
      <Icon name={icon} />
      <span className="tip" aria-hidden="true">
        {name}
        {hotkey !== undefined && <kbd>{keyNames(hotkey)}</kbd>}
      </span>
    </button>
  );
}
