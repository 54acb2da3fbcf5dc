import { Cell } from '../store/cell';

export type Theme = 'system' | 'light' | 'dark';

const STORED = 'darkroom.theme';
const ORDER: readonly Theme[] = ['system', 'light', 'dark'];

export const theme = new Cell<Theme>(stored());

/** Applies the chosen theme now and whenever it changes; the system's own needs no attribute. */
export function followTheme(): void {
  apply(theme.get());
  theme.subscribe(() => {
    apply(theme.get());
    try {
      localStorage.setItem(STORED, theme.get());
    } catch {
      // Storage may be switched off; the choice then lasts as long as the page.
    }
  });
}

export function nextTheme(now: Theme): Theme {
  return ORDER[(ORDER.indexOf(now) + 1) % ORDER.length] ?? 'system';
}

function apply(value: Theme): void {
  if (value === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = value;
}

function stored(): Theme {
  try {
    return ORDER.find((known) => known === localStorage.getItem(STORED)) ?? 'system';
  } catch {
    return 'system';
  }
}
