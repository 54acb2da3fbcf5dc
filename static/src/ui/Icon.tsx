/** Line icons on a 24 px grid. Always beside a word or inside a control that has a name. */
const PATHS = {
  alert: 'M12 8.5v4.5M12 16.6v.1M10.3 4.2 2.9 17a2 2 0 0 0 1.7 3h14.8a2 2 0 0 0 1.7-3L13.7 4.2a2 2 0 0 0-3.4 0Z',
  arrowLeft: 'M15 5.5 8.5 12l6.5 6.5',
  arrowRight: 'M9 5.5l6.5 6.5L9 18.5',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  chevron: 'M7 10l5 5 5-5',
  close: 'M6 6l12 12M18 6 6 18',
  cloudOff: 'M3.5 3.5l17 17M8.2 8.2A6 6 0 0 0 6 19h11.5M10.3 6.2A6 6 0 0 1 17.6 11a4 4 0 0 1 2.9 5.8',
  copy: 'M9 9.5A1.5 1.5 0 0 1 10.5 8h8A1.5 1.5 0 0 1 20 9.5v9a1.5 1.5 0 0 1-1.5 1.5h-8A1.5 1.5 0 0 1 9 18.5ZM15 8V5.5A1.5 1.5 0 0 0 13.5 4h-8A1.5 1.5 0 0 0 4 5.5v8A1.5 1.5 0 0 0 5.5 15H9',
  develop: 'M5 13.5 12.5 3v7.5H19L11.5 21v-7.5Z',
  dots: 'M5.5 12h.01M12 12h.01M18.5 12h.01',
  download: 'M12 4v11M7.5 11l4.5 4.5 4.5-4.5M5 19.5h14',
  enter: 'M19 6v5.5a2 2 0 0 1-2 2H5.5M9 9.5l-4 4 4 4',
  fit: 'M4 9V5.5A1.5 1.5 0 0 1 5.5 4H9M15 4h3.5A1.5 1.5 0 0 1 20 5.5V9M20 15v3.5a1.5 1.5 0 0 1-1.5 1.5H15M9 20H5.5A1.5 1.5 0 0 1 4 18.5V15',
  hand: 'M8 12.5V6.2a1.5 1.5 0 0 1 3 0V11m0-5.8a1.5 1.5 0 0 1 3 0V11m0-4.3a1.5 1.5 0 0 1 3 0V12m0-2.3a1.5 1.5 0 0 1 3 0V14a7 7 0 0 1-7 7c-2.8 0-4.3-1-5.6-3L4 14.4c-1-1.7 1-3.2 2.4-1.8L8 14.3',
  help: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM9.5 9.5a2.5 2.5 0 1 1 3.6 2.2c-.7.4-1.1.9-1.1 1.6v.4M12 16.6v.1',
  image:
    'M5.5 4h13A1.5 1.5 0 0 1 20 5.5v13a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18.5v-13A1.5 1.5 0 0 1 5.5 4ZM4 16.5l4.6-4.6a1 1 0 0 1 1.4 0l6.5 6.6M15.2 9.3h.01M14 16l2.1-2.1a1 1 0 0 1 1.4 0L20 16.4',
  minus: 'M6 12h12',
  moon: 'M20 14.2A8.2 8.2 0 0 1 9.8 4a8.2 8.2 0 1 0 10.2 10.2Z',
  note: 'M5.5 4h13A1.5 1.5 0 0 1 20 5.5V14l-6 6H5.5A1.5 1.5 0 0 1 4 18.5v-13A1.5 1.5 0 0 1 5.5 4ZM20 14h-4.5a1.5 1.5 0 0 0-1.5 1.5V20M8 8.5h8M8 12.5h4',
  pending: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7.5V12l3 2',
  plus: 'M12 6v12M6 12h12',
  redo: 'M15 5l4 4-4 4M19 9h-9a5.5 5.5 0 0 0 0 11h3',
  retry: 'M20 5v5h-5M4 19v-5h5M5.3 9A7.5 7.5 0 0 1 18.5 7L20 10M4 14l1.5 3a7.5 7.5 0 0 0 13.2-2',
  select: 'M5.5 4.5 19 10.2l-5.8 2.3L10.8 18.5Z',
  stop: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM6 6l12 12',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 2.8v1.4M12 19.8v1.4M2.8 12h1.4M19.8 12h1.4M5.5 5.5l1 1M17.5 17.5l1 1M18.5 5.5l-1 1M6.5 17.5l-1 1',
  system:
    'M4.5 5h15A1.5 1.5 0 0 1 21 6.5v8a1.5 1.5 0 0 1-1.5 1.5h-15A1.5 1.5 0 0 1 3 14.5v-8A1.5 1.5 0 0 1 4.5 5ZM8.5 20h7M12 16v4',
  trash:
    'M4.5 7h15M9.5 7V5.2A1.2 1.2 0 0 1 10.7 4h2.6a1.2 1.2 0 0 1 1.2 1.2V7M6.5 7l.8 11.6A1.5 1.5 0 0 0 8.8 20h6.4a1.5 1.5 0 0 0 1.5-1.4L17.5 7M10 11v5M14 11v5',
  undo: 'M9 5 5 9l4 4M5 9h9a5.5 5.5 0 0 1 0 11h-3',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg
      className="icon"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth={name === 'dots' ? 2.6 : 1.7}
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}
