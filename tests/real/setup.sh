#!/usr/bin/env bash
# setup.sh CHECKOUT ENVIRONMENT: put the CPU shim into an environment and make the tiny weights beside it, once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$1" && pwd)
environment=$(cd "$2" && pwd)
site=$("$environment/bin/python" -c "import site; print(site.getsitepackages()[0])")
cp -r "$here"/cpu/* "$site"/
if [ ! -e "$environment/models/.made" ]; then
    (cd "$checkout" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=. "$environment/bin/python" "$here/make_checkpoints.py" "$environment/models")
    touch "$environment/models/.made"
fi
