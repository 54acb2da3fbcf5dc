import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

/** Where `npm run dev` finds the server; a build needs none. */
const server = 'http://127.0.0.1:8000';

export default defineConfig({
  plugins: [react()],
  build: {
    target: 'es2023',
    // Every asset stays a file of its own: a strict Content-Security-Policy then needs no `data:`.
    assetsInlineLimit: 0,
    sourcemap: false,
    chunkSizeWarningLimit: 700,
  },
  test: {
    include: ['test/**/*.test.ts'],
    // The stylesheets are tested too: without this they would arrive empty.
    css: true,
  },
  server: {
    proxy: {
      '/api': server,
      '/images': server,
      '/ws': { target: server, ws: true },
    },
  },
});
