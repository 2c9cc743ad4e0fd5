//! `preview`: the drop-in that the generator would write, on stdout.

use pypnm_sizing::dropin;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::size;

use crate::args::Preview;
use crate::{Outcome, answer, remark};

pub(crate) fn run(root: &Root, arguments: &Preview) -> Outcome {
    let sizing = size(root, None, &arguments.machine.instead());
    sizing.problems.iter().for_each(|problem| remark(problem));
    if sizing.units.is_empty() {
        remark(&"sizing is turned off: the generator would write nothing");
    }
    let texts: Vec<String> = sizing.units.iter().map(|unit| dropin::text(&sizing, unit)).collect();
    answer(&texts.join("\n"))
}
