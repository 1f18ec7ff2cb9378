// A small application of Ink (INK says where that is): a list to choose from, a line to type, and how wide the terminal is. Ink takes
// keys that come together for one.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const { resolve } = createRequire(join(process.env.INK, 'package.json'));
const { render, Box, Static, Text, useApp, useInput, useStdin } = await import(resolve('ink'));
const { createElement: e, useEffect, useState } = (await import(resolve('react'))).default;

const App = () => {
  const { exit } = useApp();
  const { stdin } = useStdin();
  const [row, setRow] = useState(0);
  const [text, setText] = useState('');
  const [done, setDone] = useState([]);
  const [columns, setColumns] = useState(process.stdout.columns);
  useEffect(() => {
    process.stdout.on('resize', () => setColumns(process.stdout.columns));
  }, []);
  useInput((input, key) => {
    if (key.escape) { process.exitCode = 3; exit(); }
    else if (key.return) { setDone((all) => [...all, text]); setText(''); }
    else if (key.backspace || key.delete) setText((all) => all.slice(0, -1));
    else if (key.upArrow) setRow((row) => Math.max(row - 1, 0));
    else if (key.downArrow) setRow((row) => Math.min(row + 1, 3));
    else if (key.ctrl) setText((all) => `${all}<control ${input}>`);
    else setText((all) => all + input);
  });
  return e(Box, { flexDirection: 'column' },
    e(Static, { items: done }, (item) => e(Text, { key: item, color: 'green' }, `done: ${item}`)),
    e(Box, { borderStyle: 'round', flexDirection: 'column', width: Math.min(columns, 50) },
      [0, 1, 2, 3].map((index) => e(Text, { key: index, inverse: index === row }, `row ${index} of four`)),
      e(Text, { bold: true }, `row ${row} is chosen \u{1F680}`),
      e(Text, null, `text: ${text}`),
      e(Text, { dimColor: true }, `raw: ${stdin.isRaw}, ${columns} columns`)));
};

render(e(App));
