#!/bin/sh
# Turns a title into a slug for a URL: `sh slug.sh "Hello, World"` prints hello-world.
printf '%s' "$1" | tr 'A-Z' 'a-z' | sed 's/[^a-z0-9]/-/g'
