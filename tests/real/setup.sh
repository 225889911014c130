#!/usr/bin/env bash
# setup.sh CHECKOUT ENVIRONMENT: put the CPU shim into an environment and make the tiny weights beside it, once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$1" && pwd)
environment=$(cd "$2" && pwd)
site=$("$environment/bin/python" -c "import site; print(site.getsitepackages()[0])")
# The stand-ins lie in a folder that only the shim looks into: the resident engine uses this environment without them.
mkdir -p "$site/wan_cpu_shim"
for stand_in in dashscope flash_attn torchvision xfuser; do
    cp -r "$here/cpu/$stand_in" "$site/wan_cpu_shim/"
    if cmp -s "$here/cpu/$stand_in/__init__.py" "$site/$stand_in/__init__.py"; then rm -rf "${site:?}/$stand_in"; fi
done
cp "$here/cpu/sitecustomize.py" "$site/"
made=$(cksum < "$here/make_checkpoints.py")
if [ "$(cat "$environment/models/.made" 2> /dev/null)" != "$made" ]; then
    rm -rf "$environment"/models/{i2v,flf2v,t2v}
    (cd "$checkout" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=. "$environment/bin/python" "$here/make_checkpoints.py" "$environment/models")
    echo "$made" > "$environment/models/.made"
fi
