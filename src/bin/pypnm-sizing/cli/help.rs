//! The longer texts of `--help`: examples, and notes on a verb. Everything else is in the man page.
//!
//! A paragraph is one line, which the parser wraps at the width of the terminal. Lines of lists and examples fit in 60
//! columns, because the parser would not align their continuation.

pub(super) const ABOUT: &str = "Size PyPNM's workers to the CPUs and memory available";

pub(super) const EXAMPLES: &str = "\
Examples:
  pypnm-sizing
      this machine at a glance
  pypnm-sizing explain
      every limit, and the guide's steps
  pypnm-sizing --cpus 16 --memory 64GB
      another machine, before you buy it
  pypnm-sizing check
      for people, cron and monitoring
  pypnm-sizing apply --dry-run
      what apply would change

The default command is show. Configuration: /etc/pypnm/sizing.conf and sizing.conf.d/*.conf. \
See pypnm-sizing(1) and sizing.conf(5).";

pub(super) const SHOW_EXAMPLES: &str = "\
Examples:
  pypnm-sizing show
  pypnm-sizing show --cpus 4 --memory 8GB
      the guide's balanced node
  pypnm-sizing show --json | jq '.units[0].workers'";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  pypnm-sizing explain
  pypnm-sizing explain --unit pypnm-cmts.service
  pypnm-sizing explain --memory-gib 15.63
      with another machine's memory
  pypnm-sizing explain --root /mnt/image
      for a mounted image";

pub(super) const PREVIEW_EXAMPLES: &str = "\
Examples:
  pypnm-sizing preview
      no file is written
  pypnm-sizing preview --cpus 16 --memory 64GB
  systemctl cat pypnm.service
      what systemd has loaded";

pub(super) const EXEC_EXAMPLES: &str = "\
Variables that are set and not empty keep their values, and a complete profile file in PYPNM_SERVE_ENV_FILE is left \
unchanged. The command is executed even if sizing fails.

Exit status:
  125  incorrect usage
  126  the command cannot be executed
  127  the command was not found
Otherwise, it is that of the command.

Examples:
  pypnm-sizing exec -- /app/entrypoint.sh
      in an image's ENTRYPOINT
  pypnm-sizing exec pypnm serve --port 8000
      by hand";

pub(super) const CHECK_EXAMPLES: &str = "\
Exit status, as for monitoring plugins:
  0  OK: the profile in use fits; numbers set by hand are
     accepted and listed
  1  WARNING: it does not fit; the line states what differs
     and how to fix it
  2  CRITICAL: the service failed or keeps restarting, or
     there is no such unit
  3  UNKNOWN: systemd is not running, access was denied, or
     the usage is incorrect

Examples:
  pypnm-sizing check
      one line, with performance data
  pypnm-sizing check --verbose
  pypnm-sizing check --must-run
      a stopped service is CRITICAL
  podman exec -u 10001 pypnm pypnm-sizing check --pid 1
  pypnm-sizing check >/dev/null ||
      mail -s sizing root </dev/null";

pub(super) const SETUP_EXAMPLES: &str = "\
Prints a drop-in that adapts the packaged unit to the directory where PyPNM is installed, with a comment on each \
setting. If the service would not work, setup prints the reason and fails. Nothing is started, and nothing is changed \
without --write or --remove.

Exit status:
  0  printed, written, removed, or nothing to do
  2  failed; nothing was changed

Examples:
  pypnm-sizing setup ~/PyPNM
      what would be written
  sudo pypnm-sizing setup ~/PyPNM --write
  sudo systemctl enable --now pypnm.service
  sudo pypnm-sizing setup --remove
      go back to the packaged unit";

pub(super) const APPLY_EXAMPLES: &str = "\
Reloads systemd, reloads or restarts the service only if its number of workers or its recycle limit has changed, waits \
until it answers, and checks the result. A service that is not running is not started. Requires the same privileges as \
systemctl.

Exit status:
  0  done, or nothing to do
  1  done, but check still reports a problem
  2  failed

Examples:
  pypnm-sizing apply --dry-run
      what would happen
  sudo pypnm-sizing apply
  sudo pypnm-sizing apply --no-restart
      takes effect at the next start";

pub(super) const WATCH_EXAMPLES: &str = "\
Examples:
  pypnm-sizing watch
      press q to stop
  pypnm-sizing watch --duration 24h --json >day.jsonl
  pypnm-sizing watch --pid 4711
      a PyPNM started by hand";

pub(super) const READY_EXAMPLES: &str = "\
Examples:
  pypnm-sizing ready --pid 4711 --timeout 120";

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  pypnm-sizing report
      everything that was recorded
  pypnm-sizing report --since 7d --html week.html
  pypnm-sizing report --json | jq '.findings[].line'
  sudo pypnm-sizing report --adopt &&
      sudo pypnm-sizing apply
  ssh host cat /var/lib/pypnm-sizing/*/* |
      pypnm-sizing report -";

pub(super) const ENV_NOTES: &str = "\
PYPNM_SERVE_* variables in the environment take precedence, so an operator's Environment= in the unit reaches PyPNM. \
A value that would crash PyPNM is replaced, with a warning. In a container, use 'pypnm-sizing exec' instead.

This replaces PyPNM's seed-fastapi-worker-profile.py: with --cpu-count or --memory-gib, it writes the file as with \
--write without a PATH, unless --print-only is given.

Examples:
  pypnm-sizing env
      print the lines
  pypnm-sizing env --write
      write them where PyPNM looks
  pypnm-sizing env --cpus 16 --memory 64GB
      for another machine";
