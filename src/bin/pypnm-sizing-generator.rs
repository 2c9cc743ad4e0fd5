//! The generator's `main`: systemd's calling convention (systemd.generator(7)) around [`pypnm_sizing::sizing`].

use std::path::Path;
use std::process::ExitCode;

use pypnm_sizing::dropin::DropIn;
use pypnm_sizing::log::{self, Log, Priority};
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::{names, write};

// About a hundred small allocations, then the end: see Cargo.toml.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const NAME: &str = "pypnm-sizing-generator";
/// The exit status for invalid or excess arguments (systemd.exec(5)).
const EXIT_INVALIDARGUMENT: u8 = 2;

fn main() -> ExitCode {
    log::no_signal_on_panic(NAME);
    let log = Log::of_generator(NAME);
    let fail = |what: String| {
        log.write(&[(Priority::Error, what)]);
        ExitCode::FAILURE
    };

    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let ([normal] | [normal, _, _]) = arguments.as_slice() else {
        fail("expected NORMAL_DIR [EARLY_DIR LATE_DIR], see pypnm-sizing-generator(8)".to_owned());
        return ExitCode::from(EXIT_INVALIDARGUMENT);
    };
    let root_directory = std::env::var_os("PYPNM_SIZING_ROOT").unwrap_or_default();
    let root = match Root::at(Some(&root_directory)) {
        Ok(root) => root.for_a_generator(),
        Err(error) => return fail(format!("PYPNM_SIZING_ROOT={}: {error}", root_directory.display())),
    };
    // The initrd is not the machine that will run the service.
    if in_initrd(&root) {
        return ExitCode::SUCCESS;
    }

    let virtualization = std::env::var("SYSTEMD_VIRTUALIZATION").ok();
    let sizing = size(&Request { virtualization: virtualization.as_deref(), ..Request::new(&root) });
    let mut lines: Vec<(Priority, String)> =
        sizing.problems.iter().map(|problem| (Priority::Warning, problem.to_string())).collect();
    let mut status = ExitCode::SUCCESS;
    for unit in &sizing.units {
        let dir = Path::new(normal).join(format!("{}.d", unit.name));
        let text = DropIn::new(unit).write(&sizing, unit);
        if let Err(error) = write::replace(&dir, names::DROP_IN, &text) {
            let line = format!("{}: {error}; PyPNM falls back to its own sizing", unit.name);
            lines.push((Priority::Error, line));
            status = ExitCode::FAILURE;
        }
    }
    log.write(&lines);
    // The process ends now, so there is no need to free all this.
    std::mem::forget((sizing, root));
    status
}

/// systemd's own test (`in_initrd()`); the variable is newer (251) than the file.
fn in_initrd(root: &Root) -> bool {
    match std::env::var("SYSTEMD_IN_INITRD") {
        Ok(value) => value == "1",
        Err(_) => root.bytes("/etc/initrd-release").is_ok(),
    }
}
