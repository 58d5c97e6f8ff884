//! How seats go round between levels, as Kubernetes shares them: every ten seconds, by what each level has asked for. Pure.
//!
//! In: what each level needs at least, may have at most, and should have. Out: seats for each, the same part of what it should
//! have for all that are not bound. Invariant: they come to the seats of all levels together.

use std::time::Duration;

/// How often seats are shared out anew.
pub const PERIOD: Duration = Duration::from_secs(10);
/// What of an earlier demand stays after one period: half of it after five minutes.
const KEPT: f64 = 0.977;
/// Levels that ask for nothing are taken to ask for this.
const TARGET_MIN: f64 = 0.001;
const SLACK: f64 = 1e-6;

/// What a level has asked for: seats in use and waited for.
#[derive(Clone, Debug)]
pub struct Demand {
    now: f64,
    /// Since when it is that, and since when it is watched.
    at: Duration,
    since: Duration,
    /// Its sum over time, and that of its squares.
    sum: f64,
    squares: f64,
    most: f64,
    /// The most of the last period.
    pub peak: f64,
    /// What it has mostly been, falling slowly.
    pub smoothed: f64,
}

impl Demand {
    /// Of a level that is expected to ask for so much.
    pub fn expected(smoothed: f64, now: Duration) -> Self {
        Self { now: 0.0, at: now, since: now, sum: 0.0, squares: 0.0, most: 0.0, peak: 0.0, smoothed }
    }

    /// What it asks for from now on.
    pub fn set(&mut self, value: f64, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.sum += self.now * passed;
        self.squares += self.now * self.now * passed;
        self.at = self.at.max(now);
        self.now = value;
        self.most = self.most.max(value);
    }

    /// Ends a time of so many periods.
    pub fn settle(&mut self, now: Duration) {
        self.set(self.now, now);
        let watched = now.saturating_sub(self.since).as_secs_f64();
        let average = if watched > 0.0 { self.sum / watched } else { self.now };
        let spread =
            if watched > 0.0 { (self.squares / watched - average * average).max(0.0).sqrt() } else { 0.0 };
        let envelope = average + spread;
        let periods = (watched / PERIOD.as_secs_f64()).max(1.0);
        self.smoothed = if envelope >= self.smoothed {
            envelope
        } else {
            let kept = KEPT.powf(periods);
            kept * self.smoothed + (1.0 - kept) * envelope
        };
        (self.peak, self.most) = (self.most, self.now);
        (self.sum, self.squares, self.since) = (0.0, 0.0, now);
    }
}

/// What a level may have.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub least: f64,
    pub most: f64,
    pub target: f64,
}

/// Seats for each claim; `None` where no shares come to `sum`.
pub fn allocate(sum: f64, claims: &[Claim]) -> Option<Vec<f64>> {
    let target = |claim: &Claim| claim.target.max(TARGET_MIN);
    let share = |claim: &Claim, part: f64| (part * target(claim)).clamp(claim.least, claim.most);
    let total = |part: f64| claims.iter().map(|claim| share(claim, part)).sum::<f64>();
    let low: f64 = claims.iter().map(|claim| claim.least).sum();
    let high: f64 = claims.iter().map(|claim| claim.most).sum();
    if claims.iter().any(|claim| claim.least > claim.most) || low > sum + SLACK || high < sum - SLACK {
        return None;
    }
    // Between two of these parts the total grows evenly.
    let bounds = claims.iter().flat_map(|claim| [claim.least / target(claim), claim.most / target(claim)]);
    let mut bounds: Vec<f64> = bounds.chain([0.0]).collect();
    bounds.sort_by(f64::total_cmp);
    let above = bounds.iter().position(|part| total(*part) >= sum - SLACK)?;
    let (from, to) = (bounds[above.saturating_sub(1)], bounds[above]);
    let (least, most) = (total(from), total(to));
    let part = if most - least > SLACK { from + (to - from) * (sum - least) / (most - least) } else { to };
    Some(claims.iter().map(|claim| share(claim, part)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(sum: f64, claims: &[(f64, f64, f64)]) -> Option<Vec<f64>> {
        let claims: Vec<Claim> = claims
            .iter()
            .map(|(least, most, target)| Claim { least: *least, most: *most, target: *target })
            .collect();
        let seats = allocate(sum, &claims)?;
        Some(seats.into_iter().map(|seats| (seats * 1000.0).round() / 1000.0).collect())
    }

    #[test]
    fn all_have_the_same_part_of_their_targets_within_their_bounds() {
        type Row<'a> = (f64, &'a [(f64, f64, f64)], Option<Vec<f64>>);
        let rows: [Row<'_>; 6] = [
            (30.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 20.0)], Some(vec![10.0, 20.0])),
            (60.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 20.0)], Some(vec![20.0, 40.0])),
            (30.0, &[(15.0, 100.0, 15.0), (0.0, 100.0, 30.0)], Some(vec![15.0, 15.0])),
            (50.0, &[(0.0, 12.0, 10.0), (0.0, 100.0, 10.0)], Some(vec![12.0, 38.0])),
            (10.0, &[(6.0, 9.0, 6.0), (6.0, 9.0, 6.0)], None),
            (20.0, &[(6.0, 9.0, 6.0), (6.0, 9.0, 6.0)], None),
        ];
        for (sum, claims, want) in rows {
            assert_eq!(shared(sum, claims), want, "{sum} {claims:?}");
        }
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let at = Duration::from_secs;
        let mut demand = Demand::expected(0.0, at(0));
        demand.set(20.0, at(0));
        demand.settle(at(10));
        assert_eq!((demand.peak, demand.smoothed), (20.0, 20.0));
        demand.set(0.0, at(10));
        demand.settle(at(20));
        assert_eq!(demand.peak, 20.0, "what it began with counts");
        demand.settle(at(30));
        assert_eq!(demand.peak, 0.0);
        assert!(demand.smoothed < 19.2 && demand.smoothed > 19.0, "{}", demand.smoothed);
        // Nothing for five minutes.
        demand.settle(at(330));
        assert!(demand.smoothed < 9.6 && demand.smoothed > 9.4, "{}", demand.smoothed);
        // Up and down: the average and how far it strays from it.
        let mut demand = Demand::expected(0.0, at(0));
        demand.set(20.0, at(5));
        demand.settle(at(10));
        assert_eq!(demand.smoothed, 20.0);
    }
}
