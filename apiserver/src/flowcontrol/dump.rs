//! `/debug/api_priority_and_fairness/…`: levels, queues and waiting requests as Kubernetes' tables. Tables are text in columns,
//! whose cells end in commas.

use super::gate::FlowControl;
use super::queues::{Held, Usage};

type Row = Vec<String>;

const LEVELS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: [&str; 9] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
];
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

/// Columns are as wide as their longest cell, and no narrower than this.
const WIDTH_MIN: usize = 8;

/// Rows as text.
fn table(headers: &[&str], rows: Vec<Row>) -> String {
    let head: Row = headers.iter().map(|header| (*header).to_owned()).collect();
    let rows: Vec<Row> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count() + 2).max().unwrap_or_default().max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            if at + 1 == row.len() {
                out.push_str(cell);
            } else {
                out.push_str(&format!("{:width$}", format!("{cell},"), width = widths[at]));
            }
        }
        out.push('\n');
    }
    out
}

/// Virtual time, as it is written there.
fn seat_seconds(value: f64) -> String {
    format!("{value:.8}ss")
}

impl FlowControl {
    /// Levels by name, each with its queues.
    fn levels(&self) -> Vec<(Usage, Vec<Held>, u64, i64)> {
        let mut all = self.look(|state, schemas| -> Vec<_> {
            let of = |usage: Usage| {
                let own = schemas.iter().filter(|(level, ..)| *level == usage.level);
                let (ran, runs) = own.fold((0, 0), |(ran, runs), (_, more, now)| (ran + more, runs + now));
                (state.queues.held(&usage.level), ran, runs, usage)
            };
            state
                .queues
                .usage()
                .into_iter()
                .map(of)
                .map(|(held, ran, runs, usage)| (usage, held, ran, runs))
                .collect()
        });
        all.sort_by(|(one, ..), (other, ..)| one.level.cmp(&other.level));
        all
    }

    /// A row for each level.
    #[must_use]
    pub fn dump_levels(&self) -> String {
        let [timed_out, cancelled] = self.gone();
        let rows = self.levels().into_iter().map(|(usage, held, ran, runs)| {
            let active = held.iter().filter(|queue| !queue.waiting.is_empty()).count();
            let own = |all: &[(String, u64)]| {
                all.iter().find(|(level, _)| *level == usage.level).map_or(0, |(_, count)| *count).to_string()
            };
            vec![
                usage.level.clone(),
                active.to_string(),
                (usage.waiting == 0 && runs == 0).to_string(),
                usage.is_leaving.to_string(),
                usage.waiting.to_string(),
                runs.to_string(),
                ran.to_string(),
                usage.refused.to_string(),
                own(&timed_out),
                own(&cancelled),
            ]
        });
        table(&LEVELS, rows.collect())
    }

    /// A row for each queue.
    #[must_use]
    pub fn dump_queues(&self) -> String {
        let rows = self.levels().into_iter().flat_map(|(usage, held, ..)| {
            held.into_iter().enumerate().map(move |(index, queue)| {
                vec![
                    usage.level.clone(),
                    index.to_string(),
                    queue.waiting.len().to_string(),
                    queue.requests.to_string(),
                    queue.running.to_string(),
                    seat_seconds(queue.next),
                    queue.wanted.to_string(),
                    queue.wanted.to_string(),
                    seat_seconds(queue.work()),
                ]
            })
        });
        table(&QUEUES, rows.collect())
    }

    /// A row for each waiting request; with details of what it asks for.
    #[must_use]
    pub fn dump_requests(&self, details: bool) -> String {
        let levels = self.levels();
        let rows = self.look(|state, _| {
            let places = levels.iter().flat_map(|(usage, held, ..)| {
                held.iter().enumerate().flat_map(move |(queue, held)| {
                    held.waiting.iter().enumerate().map(move |(at, id)| (usage, queue, at, *id))
                })
            });
            let row = |(usage, queue, at, id): (&Usage, usize, usize, u64)| {
                let digest = state.digest(id)?;
                let mut row = vec![
                    usage.level.clone(),
                    digest.schema.name.clone(),
                    queue.to_string(),
                    at.to_string(),
                    digest.flow.clone(),
                    digest.arrived.to_string(),
                    digest.seats.to_string(),
                    "0".to_owned(),
                    "0s".to_owned(),
                ];
                if details {
                    let info = &digest.info;
                    let version = match info.group.as_str() {
                        "" => info.version.clone(),
                        group => format!("{group}/{}", info.version),
                    };
                    let of = [
                        &digest.user,
                        &info.verb,
                        &info.path,
                        &info.namespace,
                        &info.name,
                        &version,
                        &info.resource,
                        &info.subresource,
                    ];
                    row.extend(of.into_iter().cloned());
                }
                Some(row)
            };
            places.filter_map(row).collect()
        });
        let headers: Vec<&str> = REQUESTS.iter().chain(DETAILS.iter().filter(|_| details)).copied().collect();
        table(&headers, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cells() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text =
            table(&["Name", "N", "Last"], vec![row(["a-long-name", "1", "x"]), row(["b", "22", "yy"])]);
        assert_eq!(text, "Name,        N,      Last\na-long-name, 1,      x\nb,           22,     yy\n");
    }
}
