# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pypnm_sizing_global_optspecs
    string join \n root= cpus= cpu-count= memory= memory-gib= unit= json h/help V/version
end

function __fish_pypnm_sizing_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pypnm_sizing_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pypnm_sizing_using_subcommand
    set -l cmd (__fish_pypnm_sizing_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -l cpus -d 'Size for a machine with N CPUs' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -l cpu-count -d 'The same, under the name used by PyPNM\'s own script' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -l memory -d 'Size for a machine with this much memory: in bytes, or with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -l memory-gib -d 'Size for a machine with X GiB of memory' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -l unit -d 'Only this unit [default: every unit that is sized]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -l json -d 'Print one JSON object, for programs; see pypnm-sizing(1)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -s V -l version -d 'Print version'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "show" -d 'Show the profile of this machine at a glance (the default)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "explain" -d 'Show all limits, the tightest ones, the guide\'s steps, and what was set by hand'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "preview" -d 'Print the drop-in that the generator would write'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "env" -d 'Print or write the four lines of PyPNM\'s profile'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "exec" -d 'Size PyPNM to the limits of this process, and execute a command (for containers)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "check" -d 'Check whether the loaded profile and the running processes still fit the machine'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "apply" -d 'Reload systemd, then reload or restart the service if its profile has changed'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "setup" -d 'Set up the packaged unit for a PyPNM in a checkout or another directory'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "ready" -d 'Wait until the service answers (for ExecStartPost=)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "watch" -d 'Watch the running workers, and recommend settings'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "report" -d 'Summarize the recordings of `watch --record`, and recommend settings'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -l cpus -d 'Size for a machine with N CPUs' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -l cpu-count -d 'The same, under the name used by PyPNM\'s own script' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -l memory -d 'Size for a machine with this much memory: in bytes, or with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -l memory-gib -d 'Size for a machine with X GiB of memory' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -l unit -d 'Only this unit [default: every unit that is sized]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -l json -d 'Print one JSON object, for programs; see pypnm-sizing(1)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand show" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -l cpus -d 'Size for a machine with N CPUs' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -l cpu-count -d 'The same, under the name used by PyPNM\'s own script' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -l memory -d 'Size for a machine with this much memory: in bytes, or with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -l memory-gib -d 'Size for a machine with X GiB of memory' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -l unit -d 'Only this unit [default: every unit that is sized]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -l json -d 'Print one JSON object, for programs; see pypnm-sizing(1)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand explain" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand preview" -l cpus -d 'Size for a machine with N CPUs' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand preview" -l cpu-count -d 'The same, under the name used by PyPNM\'s own script' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand preview" -l memory -d 'Size for a machine with this much memory: in bytes, or with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand preview" -l memory-gib -d 'Size for a machine with X GiB of memory' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand preview" -l unit -d 'Only this unit [default: every unit that is sized]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand preview" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand preview" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l cpus -d 'Size for a machine with N CPUs' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l cpu-count -d 'The same, under the name used by PyPNM\'s own script' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l memory -d 'Size for a machine with this much memory: in bytes, or with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l memory-gib -d 'Size for a machine with X GiB of memory' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l write -d 'Write the lines to PATH, or where PyPNM looks: $PYPNM_SERVE_ENV_FILE, or the runtime_dir in its system.json' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l unit -d 'Use the profile of this unit [default: the first in Units=]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -l print-only -d 'Print the lines without writing a file'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand env" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand exec" -l unit -d 'Use the profile of this unit [default: the first in Units=]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand exec" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand exec" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand check" -l unit -d 'Only this unit [default: every unit that is sized]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand check" -l pid -d 'Check this process instead: PyPNM in a container, seen from inside or from the host, or started by hand' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand check" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand check" -l must-run -d 'Treat a service that is not active as CRITICAL, even if an operator stopped it'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand check" -s v -l verbose -d 'Show the profiles that were compared'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand check" -l json -d 'Print one JSON object, for programs; see pypnm-sizing(1)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand check" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand apply" -l unit -d 'Only this unit [default: every unit that is sized]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand apply" -l timeout -d 'Fail if a service does not answer within this time' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand apply" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand apply" -s n -l dry-run -d 'Print what would be done, but change nothing'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand apply" -l no-restart -d 'Only reload systemd; the service gets its new profile at its next start'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand apply" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -l unit -d 'The packaged unit that starts it' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -l user -d 'The user to run it as [default: the owner of the directory]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -l host -d 'The address to listen on [default: as in /etc/pypnm/pypnm.env, or 127.0.0.1]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -l port -d 'The port to listen on [default: as in /etc/pypnm/pypnm.env, or 8000]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -l write -d 'Write the drop-in, and reload systemd'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -l remove -d 'Remove the drop-in, and reload systemd'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand setup" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand ready" -l pid -d 'The service\'s main process [default: $MAINPID, as systemd sets it]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand ready" -l timeout -d 'Fail if the service does not answer within this time' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand ready" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand ready" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l cpus -d 'Size for a machine with N CPUs' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l cpu-count -d 'The same, under the name used by PyPNM\'s own script' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l memory -d 'Size for a machine with this much memory: in bytes, or with K, M, G, T (base 1024) or KB, MB, GB, TB (base 1000)' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l memory-gib -d 'Size for a machine with X GiB of memory' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l unit -d 'The unit to watch [default: the first in Units=]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l pid -d 'Watch this process and its children instead: PyPNM started by hand or in a container' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l interval -d 'Time between samples, in seconds or with ms, s, min, h [default: 2s, or 10s with --record or --metrics]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l evidence -d 'Length of a block of evidence: any advice requires one block, more workers three, growth six to 48' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l duration -d 'Stop after this time [default: at Ctrl-C]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l record -d 'Append the lines of --json to DIR/UNIT/YYYY-MM-DD.jsonl (UTC), for `report`' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l keep -d 'Disk space for the recordings of a unit; the oldest days are deleted first' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l metrics -d 'Write the last sample to FILE for node_exporter\'s textfile collector' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l json -d 'Print a line of JSON for each sample, and one at the end'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -l write-advice -d 'At the end, print only the recommended settings, as a drop-in for sizing.conf.d'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand watch" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l unit -d 'The unit to report on [default: the first in Units= that was recorded]' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l since -d 'Only what was recorded since TIME: 2026-11-20, "2026-11-20 08:00", 7d (ago), or @SECONDS' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l until -d 'Only what was recorded before TIME' -r
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l html -d 'Write a self-contained page with plots to FILE' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l root -d 'Read all files below DIR instead of those of the running machine' -r -F
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l json -d 'Print one JSON object, for programs; see pypnm-sizing(1)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l write-advice -d 'Print only the recommended settings, as a drop-in for sizing.conf.d'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -l adopt -d 'Write the recommended settings to 60-measured.conf in /etc/pypnm/sizing.conf.d, and show their effect'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand report" -s h -l help -d 'Print help'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "show" -d 'Show the profile of this machine at a glance (the default)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "explain" -d 'Show all limits, the tightest ones, the guide\'s steps, and what was set by hand'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "preview" -d 'Print the drop-in that the generator would write'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "env" -d 'Print or write the four lines of PyPNM\'s profile'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "exec" -d 'Size PyPNM to the limits of this process, and execute a command (for containers)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "check" -d 'Check whether the loaded profile and the running processes still fit the machine'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "apply" -d 'Reload systemd, then reload or restart the service if its profile has changed'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "setup" -d 'Set up the packaged unit for a PyPNM in a checkout or another directory'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "ready" -d 'Wait until the service answers (for ExecStartPost=)'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "watch" -d 'Watch the running workers, and recommend settings'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "report" -d 'Summarize the recordings of `watch --record`, and recommend settings'
complete -c pypnm-sizing -n "__fish_pypnm_sizing_using_subcommand help; and not __fish_seen_subcommand_from show explain preview env exec check apply setup ready watch report help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
