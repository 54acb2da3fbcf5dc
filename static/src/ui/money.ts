/** An amount as it stands on a price tag: small ones keep the digits that tell them apart. */
export function dollars(amount: number): string {
  return `$${amount.toFixed(amount !== 0 && amount < 0.01 ? 4 : 2)}`;
}

/** What something has cost so far. */
export function spentWords(amount: number): string {
  return amount === 0 ? 'nothing' : dollars(amount);
}
