'use strict'
// node main.js RANGE VERSION…: one line a version, ascending, with whether the range takes it.
const semver = require('semver')
const colours = require('picocolors')

const [range, ...versions] = process.argv.slice(2)
if (!semver.validRange(range) || versions.length === 0) {
  console.error('usage: main.js RANGE VERSION…')
  process.exit(2)
}
for (const version of semver.sort(versions)) {
  const taken = semver.satisfies(version, range)
  console.log(`${taken ? colours.green('yes') : colours.red('no ')} ${version}`)
}
console.log(`best: ${semver.maxSatisfying(versions, range)}`)
