/** Saves a picture as a file. One that another host keeps to itself opens beside this page instead. */
export async function save(url: string, prompt: string): Promise<void> {
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`answered ${response.status}`);
    const blob = await response.blob();
    const address = URL.createObjectURL(blob);
    follow(address, `${fileName(prompt)}.${extensionOf(blob.type)}`);
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch {
    window.open(url, '_blank', 'noopener');
  }
}

export function fileName(prompt: string): string {
  const words = prompt
    .toLowerCase()
    .normalize('NFKD')
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-+|-+$/g, '');
  return words.slice(0, 60).replace(/-+$/, '') || 'picture';
}

export function extensionOf(type: string): string {
  const kind = /^image\/(png|jpeg|webp|gif|avif)$/.exec(type)?.[1] ?? 'png';
  return kind === 'jpeg' ? 'jpg' : kind;
}

function follow(address: string, name: string): void {
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
}
