/** An amount as it stands on a price tag: small ones keep the digits that tell them apart. */
export function dollars(amount: number): string {
  return `$${amount.toFixed(amount !== 0 && amount < 0.01 ? 4 : 2)}`;
}

/** What was spent, and what is held back for what is being made. */
export function costWords({ spentUsd, reservedUsd }: { spentUsd: number; reservedUsd: number }): string {
  const spent = spentUsd === 0 ? 'nothing' : dollars(spentUsd);
  return reservedUsd === 0 ? spent : `${spent}, up to ${dollars(reservedUsd)} more for those in the making`;
}
