//! Reproducible random numbers and noise.

use crate::watch::number;

/// A reproducible random number generator (xorshift64*, Vigna 2016).
#[derive(Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from 0 (exclusive) to 1.
    pub(super) fn even(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        number((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11).max(1)) / number(1 << 53)
    }

    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.even().ln()).sqrt() * (std::f64::consts::TAU * self.even()).cos()
    }

    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.even().ln()
    }
}

/// Noise with an exponential correlation in time (Ornstein and Uhlenbeck); with a time constant of 0: white.
#[derive(Clone, Copy, Default)]
pub(super) struct Noise {
    /// The standard deviation in MiB.
    pub(super) sigma: f64,
    /// The time constant in seconds.
    pub(super) tau: f64,
}

impl Noise {
    pub(super) fn next(self, before: f64, elapsed: f64, chance: &mut Chance) -> f64 {
        let kept = if self.tau > 0.0 { (-elapsed / self.tau).exp() } else { 0.0 };
        before * kept + self.sigma * (1.0 - kept * kept).sqrt() * chance.normal()
    }
}
