#!/bin/sh
# Checks slug.sh. Ends with 1 if any case fails.
failed=0
check() {
  got=$(sh slug.sh "$1")
  if [ "$got" = "$2" ]; then
    echo "ok   $1 -> $got"
  else
    echo "FAIL $1 -> $got (expected $2)"
    failed=1
  fi
}
check "Hello" "hello"
check "Hello, World" "hello-world"
check "  What?! Again  " "what-again"
check "Release 2.0" "release-2-0"
if [ "$failed" = 0 ]; then echo "all tests passed"; else echo "some tests failed"; fi
exit "$failed"
