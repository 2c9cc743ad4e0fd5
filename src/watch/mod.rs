//! Evaluates measurements of the workers: the pure part of `pypnm-sizing watch` and `report`.
//!
//! Samples go in, findings come out. Nothing here reads a file or a clock, so tests can replay a watch of a week. The helper
//! reads processes and recordings, and shows the results.
//!
//! ```text
//!  /proc → [role] of processes → [meter] rates → [line] ⇄ JSON, recordings
//!                                                │
//!        [advice] ← [evidence] ←─────────────────┘
//!  lines for        [block]  ten minutes: demand, pressure, memory
//!  sizing.conf      [lives]  a worker from birth to recycle   [trend] growth and its uncertainty
//!                   [history] of bounded size                 [days]  an hour at a time, for reports
//! ```

pub mod advice;
pub mod block;
pub mod days;
pub mod evidence;
pub mod history;
pub mod line;
pub mod lives;
pub mod meter;
pub mod role;
pub mod text;
pub mod trend;

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod simulate;

/// A mebibyte.
pub const MIB: u64 = 1 << 20;

/// A count or an amount as a floating-point number. The memory of a machine is far below 2⁵³ bytes.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53, and a measurement above")]
pub fn number(amount: u64) -> f64 {
    amount as f64
}

/// The smaller of two amounts, or the one that is known.
fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

/// The inverse, rounded; negative numbers and NaN become 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as intended")]
pub fn to_u64(number: f64) -> u64 {
    number.round() as u64
}
