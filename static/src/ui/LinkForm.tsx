import { useState, type FormEvent } from 'react';

import { Button } from './Button';

/** A place for a link or token. */
export function LinkForm({ onLink }: { onLink: (text: string) => boolean }) {
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState(false);
  const onSubmit = (event: FormEvent): void => {
    event.preventDefault();
    setWrong(!onLink(text));
  };
  return (
    <form className="link-form" onSubmit={onSubmit}>
      <input
        aria-label="Link or token"
        aria-invalid={wrong}
        aria-describedby={wrong ? 'link-wrong' : undefined}
        placeholder="Paste a link or token"
        autoComplete="off"
        spellCheck={false}
        autoFocus
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setWrong(false);
        }}
      />
      <Button word="Open" look="primary" type="submit" disabled={text.trim() === ''} />
      {wrong && (
        <p id="link-wrong" role="alert">
          No token is in this. Copy the whole link, with everything behind the #.
        </p>
      )}
    </form>
  );
}
