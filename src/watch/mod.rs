//! What the live workers' numbers say: the pure half of `pypnm-sizing watch`.
//!
//! Samples go in, findings come out; nothing here reads a file or a clock, so a day's watch can be replayed in a
//! test. Reading processes and drawing the screen is the helper's.
//!
//! ```text
//!  sample → [role]  who is who   → [ledger]  lives, peaks, evidence → [advice] lines for sizing.conf
//!                                  [history] bounded                  [slope]  growth and its uncertainty
//! ```

pub mod advice;
pub mod history;
pub mod ledger;
pub mod role;
pub mod slope;

#[cfg(test)]
mod feed;
#[cfg(test)]
mod recorded;

/// A mebibyte.
pub const MIB: u64 = 1 << 20;

/// A count or an amount as a number to reckon with. Bytes of one machine stay far below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53, and a measurement above")]
pub fn number(amount: u64) -> f64 {
    amount as f64
}

/// Back to a whole amount, rounded; a negative number and NaN are 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, which is what is meant"
)]
pub fn whole(number: f64) -> u64 {
    number.round() as u64
}
