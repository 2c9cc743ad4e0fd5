//! The result of sizing as data: the inputs, and what was derived from them. [`crate::sizing`] produces it; [`crate::reasons`],
//! [`crate::dropin`] and the helper only read it. Pure.

use crate::capacity::Capacity;
use crate::config::{Config, UnitConfig};
use crate::limits::Limit;
use crate::limits::host::Host;
use crate::overrides::Overrides;
use crate::policy::Profile;
use crate::problem::Problem;
use crate::units::Unit;

/// The result: all inputs and what was derived from them, in that order.
#[derive(Debug)]
pub struct Sizing {
    /// The value of `pypnm.sizing=` on the kernel command line, and the file that contains it.
    pub kernel_switch: Option<(bool, &'static str)>,
    /// The operator's configuration.
    pub config: Config,
    /// The units of the configuration, each once.
    pub names: Vec<String>,
    /// The machine itself, without the limits of containers and units. Empty if sizing is turned off.
    pub host: Host,
    /// The units, each with its profile.
    pub units: Vec<SizedUnit>,
    /// Problems with the inputs.
    pub problems: Vec<Problem>,
}

/// A unit, its profile, and everything that the profile was derived from.
#[derive(Debug)]
pub struct SizedUnit {
    /// Its name.
    pub name: String,
    /// The configuration that applies to it.
    pub config: UnitConfig,
    /// Its unit files. `None`: its name is not that of a service.
    pub definition: Option<Unit>,
    /// The slices that it is in, from the outermost.
    pub slices: Vec<String>,
    /// The settings that override the drop-in.
    pub overrides: Overrides,
    /// All limits, from the outermost.
    pub limits: Vec<Limit>,
    /// The minimum of these limits.
    pub capacity: Capacity,
    /// The profile that the guide derives from the capacity.
    pub profile: Profile,
}

impl Sizing {
    /// Whether sizing is enabled, at this boot and in the configuration.
    pub fn is_enabled(&self) -> bool {
        self.kernel_switch.is_none_or(|(on, _)| on) && self.config.is_enabled()
    }
}
