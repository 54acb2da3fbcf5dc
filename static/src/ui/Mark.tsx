/** The sign of the house: a sheet under the safelight. */
export function Mark({ size = 20 }: { size?: number }) {
  return (
    <svg className="mark" width={size} height={size} viewBox="0 0 20 20" aria-hidden="true">
      <rect className="mark-sheet" x="2.5" y="1.5" width="15" height="17" rx="2.5" />
      <rect className="mark-picture" x="4.8" y="3.8" width="10.4" height="9.6" rx="0.8" />
      <circle className="mark-light" cx="10" cy="8.6" r="2.6" />
    </svg>
  );
}
