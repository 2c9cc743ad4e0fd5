#!/bin/bash
# A stand-in for PyPNM's scripts/start-fastapi-service.sh, which comes with git checkouts only, neither from PyPI nor in
# the source distribution. It does what that does: it sources the profile, adds `serve` where no subcommand was given and
# the flags that the caller gave none of, says which numbers are active and where they are from, and becomes `pypnm`.
set -eu
: "${PYPNM_SERVE_ENV_FILE:=.data/runtime/pypnm-serve.env}"
from=start_script_default
if [ -f "$PYPNM_SERVE_ENV_FILE" ]; then
    source "$PYPNM_SERVE_ENV_FILE"
    from=seeded_profile
fi
case ${1-} in
'' | -*) set -- serve "$@" ;;
esac
workers= limit= previous=
for word; do
    case $word in
    --workers=*) workers=${word#*=} ;;
    --limit-max-requests=*) limit=${word#*=} ;;
    esac
    case $previous in
    --workers) workers=$word ;;
    --limit-max-requests) limit=$word ;;
    esac
    previous=$word
done
[ -z "$workers$limit" ] || from=explicit_cli
if [ -z "$workers" ] && [ -n "${PYPNM_SERVE_WORKERS-}" ]; then
    workers=$PYPNM_SERVE_WORKERS
    set -- "$@" --workers "$workers"
fi
if [ -z "$limit" ] && [ -n "${PYPNM_SERVE_LIMIT_MAX_REQUESTS-}" ]; then
    limit=$PYPNM_SERVE_LIMIT_MAX_REQUESTS
    set -- "$@" --limit-max-requests "$limit"
fi
export PYPNM_ACTIVE_WORKERS=$workers PYPNM_ACTIVE_LIMIT_MAX_REQUESTS=$limit PYPNM_ACTIVE_RUNTIME_SOURCE=$from PYPNM_SERVE_ENV_FILE
exec pypnm "$@"
