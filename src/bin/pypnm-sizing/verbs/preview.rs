//! `preview`: the drop-in that the generator would write, on stdout.

use pypnm_sizing::dropin::DropIn;
use pypnm_sizing::names;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};

use crate::cli::Preview;
use crate::output::{Outcome, answer, remark};
use crate::wording::{chosen, turned_off};

pub(crate) fn run(root: &Root, arguments: &Preview) -> Outcome {
    let sizing = size(&Request { hypothetical: arguments.machine.hypothetical(), ..Request::new(root) });
    sizing.problems.iter().for_each(|problem| remark(problem));
    let units = chosen(&sizing, arguments.unit.as_deref())?;
    if let Some(why) = turned_off(&sizing) {
        remark(&format!("{why}: the generator would write nothing"));
    }
    let texts: Vec<String> = units
        .iter()
        .map(|unit| {
            let text = DropIn::new(unit).write(&sizing, unit);
            // A single drop-in is printed as it would be written; several ones are printed with their names.
            if units.len() > 1 { format!("# {}.d/{}\n{text}", unit.name, names::DROP_IN) } else { text }
        })
        .collect();
    answer(&texts.join("\n"))
}
