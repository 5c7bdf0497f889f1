#!/usr/bin/env bash
# The life of a volume's keys: what docs/OPERATIONS.md shows, this script printed. It starts a fake of AWS KMS and a
# daemon on loopback, in a temporary directory, runs each command, prints it with its output, and fails where one does
# not do what the text says. Uuids, key ids and digests are cut after eight digits, the beginning of ARNs left out, and "…" put there.
#
#   npm run build && bash scripts/key-walkthrough.sh
#
# Needs nbdcopy and nbdinfo (Debian: libnbd-bin), jq and curl. Takes a minute or two.
set -euo pipefail
cd "$(dirname "$0")/.."
for program in nbdcopy nbdinfo jq curl; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 1; }
done
npx tsc -p tsconfig.kms-fake.json

work=$(mktemp -d "${TMPDIR:-/tmp}/sealbd-keys.XXXXXX")
daemon='' kms=''
end() {
  for pid in $daemon $kms; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap end EXIT

sealbd() { node dist/cli/main.js --data "$work/data" "$@"; }
metrics() { curl -sf --unix-socket "$work/data/admin.sock" http://sealbd/metrics; }
# Tells the fake what AWS, or the customer, does.
fake() { curl -s --fail-with-body "$AWS_ENDPOINT_URL_KMS/_control" -d "$1" >"$work/answer"; }

title() { printf '\n## %s\n\n' "$1"; }
# Cuts what is long and random, and lays tables out anew.
shorten() {
  sed -E -e "s#$work#/srv#g" -e 's/arn:aws:kms:us-east-1:111122223333:key/arn:\x01:key/g' \
    -e 's/\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/\1\x01/g' \
    -e 's/\b([0-9a-f]{8})[0-9a-f]{56}\b/\1\x01/g' -e 's/[[:space:]]+$//' -e '/^$/d' |
    awk -F '  +' '
      function table(  row, i) {
        for (row = 1; row <= rows; row++)
          for (i = 1; i <= cells; i++) printf(i < cells ? "%-" width[i] + 2 "s" : "%s\n", cell[row, i])
        rows = 0
        split("", width)
      }
      NF != cells || NF < 3 { table(); cells = NF }
      NF < 3 { print; next }
      { rows++ }
      { for (i = 1; i <= NF; i++) { cell[rows, i] = $i; if (length($i) > width[i]) width[i] = length($i) } }
      END { table() }' | sed 's/\x01/…/g'
}
fail() {
  echo "FAILED: $1" >&2
  tail -n 20 "$work/sealbd.log" >&2 || true
  exit 1
}
# run CODE COMMAND PATTERN...: prints the command and what it prints; that must match every pattern (not, after a !).
run() {
  local wanted=$1 command=$2 code=0 pattern
  shift 2
  printf '$ %s\n' "$command"
  eval "${command//\/srv/$work}" >"$work/output" 2>&1 || code=$?
  shorten <"$work/output"
  [ "$code" -eq 0 ] || printf '(exit code %s)\n' "$code"
  [ "$code" -eq "$wanted" ] || fail "exit code $code, not $wanted: $command"
  for pattern in "$@"; do
    if [ "${pattern#!}" != "$pattern" ]; then
      ! grep -Eq -- "${pattern#!}" "$work/output" || fail "the output has ${pattern#!}: $command"
    else
      grep -Eq -- "$pattern" "$work/output" || fail "the output lacks $pattern: $command"
    fi
  done
}
# Waits until a command succeeds; sets `waited` to the seconds that it took.
until_true() {
  local start=$EPOCHREALTIME
  until eval "$1" >/dev/null 2>&1; do
    awk "BEGIN { exit !($EPOCHREALTIME - $start > 60) }" && fail "not in 60 s: $1"
    sleep 0.1
  done
  waited=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")
}
# What the daemon wrote since `mark`.
mark() { log_mark=$(wc -l <"$work/sealbd.log") audit_mark=$(wc -l <"$work/data/audit.jsonl"); }
log() { tail -n +$((log_mark + 1)) "$work/sealbd.log"; }
audit() { tail -n +$((audit_mark + 1)) "$work/data/audit.jsonl"; }
key_is() { sealbd key status "$1" --json | jq -e ".[0].state == \"$2\""; }
volume_is() { sealbd volume info "$1" --json | jq -e ".state == \"$2\""; }
digest() { nbdcopy "$NBD/db" - | head -c "$(stat -c %s "$work/image")" | sha256sum | cut -d' ' -f1; }
same_data() { [ "$(digest)" = "$IMAGE" ] || fail 'the volume reads as something else'; }

# configure KEYS RESUME GRACE: the pin of db, and two settings of the watchdog, which asks often here.
configure() {
  : >"$work/sealbd.toml"
  [ -z "$1" ] || printf '[volumes.db]\nkey = %s\n\n' "$1" >"$work/sealbd.toml"
  cat >>"$work/sealbd.toml" <<TOML
[watchdog]
poll_interval = "1s"
confirm_after = "500ms"
unreachable_grace = "$3"
resume = "$2"
hook = "alert"
TOML
}
start_daemon() {
  local lines
  lines=$(wc -l <"$work/sealbd.log")
  node dist/cli/main.js --data "$work/data" serve --config "$work/sealbd.toml" --listen 127.0.0.1:0 2>>"$work/sealbd.log" &
  daemon=$!
  until_true "tail -n +$((lines + 1)) $work/sealbd.log | grep -q '\"ready: '"
  NBD=nbd://$(tail -n +$((lines + 1)) "$work/sealbd.log" | jq -r 'select(.msg | startswith("ready")) | .listen[0]')
}
restart_daemon() {
  kill "$daemon"
  wait "$daemon" || fail 'the daemon did not end in order'
  start_daemon
}
credentials() {
  fake '{"do":"add-access-key"}'
  ACCESS_KEY=$(jq -r .AWS_ACCESS_KEY_ID "$work/answer")
  jq -r '"[default]\naws_access_key_id=\(.AWS_ACCESS_KEY_ID)\naws_secret_access_key=\(.AWS_SECRET_ACCESS_KEY)"' \
    "$work/answer" >"$work/credentials"
}
new_key() {
  fake '{"do":"create-key"}'
  jq -r .arn "$work/answer"
}
# What the customer does to a key, named by its URI.
set_key_state() { fake "{\"do\":\"set-state\",\"key\":\"${1#awskms:///}\",\"state\":\"$2\"}"; }

# The fake, and the AWS settings of the daemon: none of the machine's own.
for name in "${!AWS_@}"; do unset "$name"; done
node build/kms-fake/main.js --port 0 >"$work/kms.log" &
kms=$!
until_true "grep -q AWS_REGION= $work/kms.log"
AWS_ENDPOINT_URL_KMS=$(sed -n 's/^ *export AWS_ENDPOINT_URL_KMS=//p' "$work/kms.log")
export AWS_ENDPOINT_URL_KMS AWS_REGION=us-east-1 AWS_CONFIG_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
export AWS_SHARED_CREDENTIALS_FILE="$work/credentials"
credentials
KEY_A=awskms:///$(new_key)
KEY_B=awskms:///$(new_key)
printf '#!/bin/sh\ncat >>%s/alerts.jsonl\n' "$work" >"$work/alert"
chmod +x "$work/alert"
: >"$work/sealbd.log"
configure '' manual 24h
start_daemon

title 'Encryption on'
run 0 'sealbd volume create db --size 1G' 'cipher +aes-256-gcm' 'key +local:default'
head -c 100000000 /dev/urandom >"$work/image"
IMAGE=$(sha256sum <"$work/image" | cut -d' ' -f1)
nbdcopy "$work/image" "$NBD/db"
run 0 'sealbd key status db' 'valid' '1 active exposed'
run 0 'sealbd volume header-backup db /srv/before.header'

title 'Trying a key'
run 0 'sealbd key check "$KEY_A"' 'the key can be used'
fake '{"do":"deny","actions":["kms:Decrypt"]}'
run 4 'sealbd key check "$KEY_A"' 'kms:Decrypt +denied' 'fix: in the policy' 'the key can NOT be used'
fake '{"do":"allow","actions":["kms:Decrypt"]}'

title 'To the key of the customer'
mark
run 0 'sealbd key set db "$KEY_A"' '1 DEK moved from local:default' 'stays exposed'
run 0 'audit | jq -c "{event, dekId, from, to, keyUri, by}"' '"event":"key-set","dekId":null,"from":"local:default"' '"event":"wrap","dekId":1'
mark
run 0 'sealbd key rotate db --reencrypt' 'older DEKs are destroyed'
run 0 'sealbd key status db' '2 active' '!exposed'
run 0 'audit | jq -c "{event, dekId, keyUri}"' '"event":"destroy","dekId":1,"keyUri":"awskms:'
run 0 'sealbd key usage local:default' 'yes, see the notes'
same_data

title 'Rotating'
fake "{\"do\":\"rotate\",\"key\":\"${KEY_A#awskms:///}\"}"
run 0 'sealbd key rewrap db' 'rewrapped under'
run 0 'sealbd key rotate db' 'new data is under DEK 3'
run 0 "sealbd key status db --json | jq -c '.[0].deks[] | {id, state, segments, bytes}'" '"id":2,"state":"retired"' '"id":3,"state":"active"'
run 0 'sealbd key rotate db --reencrypt' 'older DEKs are destroyed'
run 0 "sealbd key status db --json | jq -c '.[0].deks[] | {id, state, segments, bytes}'" '"id":4,"state":"active"' '!retired'
sealbd volume stop db >/dev/null
run 1 'sealbd volume header-restore db /srv/before.header' 'which the backup has not'
sealbd volume start db >/dev/null
run 0 'sealbd volume header-backup db /srv/after.header'
same_data

title 'Revoked'
: >"$work/alerts.jsonl"
mark
set_key_state "$KEY_A" Disabled
until_true 'volume_is db key-invalid'
echo "(stopped after $waited s)"
run 0 "sealbd status | sed -n '/^Volumes/,/^$/p; /^Problems/,/^$/p'" 'key-invalid' 'DisabledException' 'is disabled'
run 0 "sealbd key status db --json | jq '.[0] | {state, reason, lastCheck, nextCheck}'" '"state": "invalid"' 'DisabledException'
run 1 'nbdinfo "$NBD/db"' 'server replied with error'
run 0 "log | jq -c '{level, volume, msg}'" 'the key service refuses the key' 'its keys are wiped'
run 0 "audit | jq -c 'del(.uuid, .reason)'" '"event":"key-state".*"to":"invalid"' '"event":"stop"'
until_true "[ \$(wc -l <$work/alerts.jsonl) -ge 2 ]"
run 0 "jq -c '{event, volume, from, to, by}' /srv/alerts.jsonl" '"event":"stop"'
run 0 "metrics | grep -E '^sealbd_(key_slots_used|key_problem|(volume|key)_state.* 1$)'" 'sealbd_key_slots_used 0' 'state="key-invalid"} 1'
run 4 'sealbd volume start db' 'DisabledException'
run 4 'sealbd key set db "$KEY_B"' 'DisabledException'

title 'Given back'
set_key_state "$KEY_A" Enabled
until_true 'key_is db valid'
run 0 "sealbd status | sed -n '/^Keys/,/^$/p'" 'awskms:.* valid'
run 0 'sealbd volume start db' 'db: serving'
same_data

title 'What each refusal is called, and coming back by itself'
configure '' auto 24h
restart_daemon
refused() {
  until_true 'volume_is db key-invalid'
  run 0 'sealbd volume info db --json | jq -r .reason' "$1"
}
back() {
  until_true 'volume_is db serving'
  echo "(serving again after $waited s)"
}
fake '{"do":"deny","actions":["kms:Decrypt"]}'
refused 'AccessDeniedException'
fake '{"do":"allow","actions":["kms:Decrypt"]}'
back
set_key_state "$KEY_A" PendingDeletion
refused 'waits to be deleted, on'
set_key_state "$KEY_A" Enabled
back
fake "{\"do\":\"expire-access-key\",\"accessKeyId\":\"$ACCESS_KEY\"}"
refused 'credentials have expired'
credentials
back
same_data

title 'An outage'
mark
fake '{"do":"inject","fault":"unavailable"}'
until_true 'key_is db unreachable'
run 0 "sealbd key status db --json | jq '.[0] | {state, reason, lastCheck, nextCheck, graceEndsAt}'" '"state": "unreachable"' '"graceEndsAt": "'
run 0 "metrics | grep '^sealbd_key_grace_left'" '\{volume="db"\} 86[0-9]+'
volume_is db serving >/dev/null || fail 'an outage stopped the volume before the grace period was over'
fake '{"do":"clear-faults"}'
until_true 'key_is db valid'
run 0 "log | jq -c '{level, msg, graceEndsAt}'" 'cannot be reached' 'valid again'
configure '' auto 3s
restart_daemon
fake '{"do":"inject","fault":"unavailable"}'
refused 'not reachable for the grace period of 3s'
fake '{"do":"clear-faults"}'
back
same_data

title 'Moving, with a pin'
configure "\"$KEY_A\"" manual 24h
restart_daemon
run 1 'sealbd key set db "$KEY_B"' 'the configuration pins the key'
configure "[\"$KEY_A\", \"$KEY_B\"]" manual 24h
restart_daemon
run 0 'sealbd key set db "$KEY_B"' '1 DEK moved'
configure "\"$KEY_B\"" manual 24h
restart_daemon
same_data

title 'A volume that was not encrypted'
run 0 'sealbd volume create old --size 64M --cipher none' 'cipher +none'
yes 'the customer wrote this' | head -c 8000000 >"$work/plain" || true
nbdcopy "$work/plain" "$NBD/old"
run 0 "grep -lr 'the customer wrote this' /srv/data" 'seg-'
run 0 'sealbd volume encrypt old --key "$KEY_A"' 'overwritten and gone' 'not reached by this'
run 1 "grep -lr 'the customer wrote this' /srv/data"
cmp <(nbdcopy "$NBD/old" - | head -c 8000000) "$work/plain" || fail 'the volume reads as something else'

title 'Deleting a key'
run 0 'sealbd key usage' 'db .*4 active' 'old .*1 active'
run 0 'sealbd key usage "$KEY_A"' 'old .*1 active.* no *$'
run 0 'sealbd key set old "$KEY_B"' '1 DEK moved'
run 0 'sealbd key usage "$KEY_A"' 'yes, see the notes' '! no *$'
fake "{\"do\":\"delete-key\",\"key\":\"${KEY_A#awskms:///}\"}"
run 0 'sealbd key status db --check' 'valid'
same_data
echo
echo 'Every command did what it should.'
