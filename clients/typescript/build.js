// Builds dist/ from src/: one module for everybody, and its declarations. Fails when the module outgrows its limit.

import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

/** The most that the minified and compressed module may weigh, in bytes. */
const LIMIT = 6 * 1024;

const HEAD = "// Generated from src/ by \"npm run build\". Do not edit.\n";

rmSync("dist", { recursive: true, force: true });
execFileSync("node_modules/.bin/tsc", { stdio: "inherit" });
for (const name of readdirSync("dist")) {
  writeFileSync(`dist/${name}`, HEAD + readFileSync(`dist/${name}`, "utf8"));
}
const bundle = { entryPoints: ["src/index.ts"], bundle: true, format: "esm", target: "es2022" };
await build({ ...bundle, outfile: "dist/index.js", banner: { js: HEAD.trimEnd() } });

const { outputFiles } = await build({ ...bundle, minify: true, write: false });
const { length: size } = gzipSync(outputFiles[0].contents, { level: 9 });
console.log(`minified and compressed: ${size} bytes of at most ${LIMIT}`);
if (size > LIMIT) process.exit(1);
