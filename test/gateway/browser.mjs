// browser.mjs CHROMIUM FOLDER PORT...: pages in a real browser.  A page of each of these ports
// of 127.0.0.1 is served from here, and opened.  Each line of standard input, {"page": its
// number, "code": JavaScript}, is run in that page; its value (of a promise, what it comes to)
// or what it threw is a line of standard output: {"value"} or {"error"}.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath, folder, ...ports] = process.argv.slice(2);
for (const port of ports) {
  await new Promise((done) => {
    createServer((request, response) => {
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      response.end('<!doctype html><title>A page</title>');
    }).listen(Number(port), '127.0.0.1', done);
  });
}
const browser = await chromium.launchPersistentContext(folder, {
  executablePath,
  headless: true,
  timeout: 180000,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const pages = [];
for (const port of ports) {
  const page = await browser.newPage();
  page.setDefaultTimeout(180000);
  await page.goto(`http://127.0.0.1:${port}/`);
  pages.push(page);
}
console.log(JSON.stringify({ value: browser.browser()?.version() ?? 'a browser' }));
for await (const line of createInterface({ input: process.stdin })) {
  const { page, code } = JSON.parse(line);
  let told;
  try {
    told = { value: (await pages[page].evaluate(code)) ?? null };
  } catch (error) {
    told = { error: String(error.message) };
  }
  console.log(JSON.stringify(told));
}
await browser.close();
process.exit(0);
