//! The timeline of reads: one cell for some milliseconds, the moments of the story below it.

use std::time::Duration;

use super::{
    fault::Fault,
    story::{Moment, Place, Read, Story},
};
use crate::{
    paint::{Paint, Tone},
    time::brief,
};

/// What a cell may stand for, the finest first.
const CELLS: [u64; 6] = [50, 100, 200, 500, 1000, 2000];
/// More rows are harder to read than coarser cells.
const MOST_ROWS: usize = 3;
/// Columns before the first cell: the time, and a space at either side.
const MARGIN: usize = 9;

/// How a timeline is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// What one cell stands for.
    pub(super) cell: Duration,
    /// Cells in a row.
    pub(super) columns: usize,
}

/// What a cell shows: the worst that happened in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Quiet,
    Replica,
    Primary,
    Failed,
}

impl Layout {
    /// The finest layout in which so much time fits into few rows of this width.
    pub(super) fn of(width: usize, time: Duration) -> Self {
        // Rows begin at round times: whole tens of cells.
        let columns = (width.saturating_sub(MARGIN + 1) / 10 * 10).clamp(10, 100);
        let fits = |cell: &&u64| time.as_millis() <= u128::from(**cell) * (columns * MOST_ROWS) as u128;
        let cell = CELLS.iter().find(fits).unwrap_or(&CELLS[CELLS.len() - 1]);
        Self { cell: Duration::from_millis(*cell), columns }
    }

    /// The rows that are complete at this moment.
    pub(super) fn complete_rows(&self, now: Duration) -> usize {
        self.cell_of(now) / self.columns
    }

    fn cell_of(&self, at: Duration) -> usize {
        usize::try_from(at.as_millis() / self.cell.as_millis()).unwrap_or(usize::MAX)
    }
}

/// Draws rows of a story.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    pub(super) layout: Layout,
    pub(super) paint: Paint,
    pub(super) fault: Fault,
}

impl Timeline {
    /// What the glyphs mean.
    pub(super) fn legend(&self) -> String {
        let cell = humantime::format_duration(self.layout.cell).to_string();
        let entry = |cell: Cell, says: &str| format!("{} {says}", self.glyph(cell));
        let entries = [
            entry(Cell::Replica, "replica"),
            entry(Cell::Primary, "detour"),
            entry(Cell::Failed, "failed"),
            entry(Cell::Quiet, "none"),
        ];
        format!("  reads, {cell} each:  {}", entries.join("  "))
    }

    /// The rows from `first` up to `now`, each with the moments that fall into it.
    pub(super) fn rows(&self, story: &Story, first: usize, now: Duration) -> Vec<String> {
        let (columns, end) = (self.layout.columns, self.layout.cell_of(now));
        let cells = self.cells(&story.reads, first * columns, end);
        let mut lines = Vec::new();
        for (index, row) in cells.chunks(columns).enumerate() {
            let start = (first + index) * columns;
            let at = self.layout.cell.as_secs_f64() * start as f64;
            let glyphs: String = runs(row).map(|(cell, length)| self.run(cell, length)).collect();
            lines.push(format!("{} {glyphs}", self.paint.text(Tone::Faint, &format!("{at:6.1} s"))));
            lines.extend(self.marks(story, start));
        }
        lines
    }

    fn cells(&self, reads: &[Read], first: usize, end: usize) -> Vec<Cell> {
        let mut cells = vec![Cell::Quiet; (end + 1).saturating_sub(first)];
        for read in reads {
            let index = self.layout.cell_of(read.ended).checked_sub(first);
            let Some(cell) = index.and_then(|index| cells.get_mut(index)) else { continue };
            let shows = match read.served {
                Ok(Place::Replica) => Cell::Replica,
                Ok(Place::Primary) => Cell::Primary,
                Err(_) => Cell::Failed,
            };
            *cell = shows.max(*cell);
        }
        // The last cell has only begun: that it is quiet says nothing yet.
        if cells.last() == Some(&Cell::Quiet) {
            cells.pop();
        }
        cells
    }

    fn glyph(&self, cell: Cell) -> String {
        self.run(cell, 1)
    }

    fn run(&self, cell: Cell, length: usize) -> String {
        let (fancy, plain, tone) = match cell {
            Cell::Quiet => ("·", ".", Tone::Faint),
            Cell::Replica => ("█", "#", Tone::Good),
            Cell::Primary => ("▒", "~", Tone::Away),
            Cell::Failed => ("✗", "X", Tone::Bad),
        };
        self.paint.text(tone, &if self.paint.unicode { fancy } else { plain }.repeat(length))
    }

    /// The moments of one row, each below its cell; one line, or more where they would overlap.
    fn marks(&self, story: &Story, start: usize) -> Vec<String> {
        let mut lines: Vec<Vec<char>> = Vec::new();
        let width = self.layout.columns;
        for (moment, at) in &story.moments {
            let Some(column) = self.layout.cell_of(*at).checked_sub(start).filter(|column| *column < width) else {
                continue;
            };
            let label = self.label(story, *moment);
            place(&mut lines, column, &label, if self.paint.unicode { '▲' } else { '^' }, width);
        }
        let line = |line: Vec<char>| format!("{}{}", " ".repeat(MARGIN), line.iter().collect::<String>().trim_end());
        lines.into_iter().map(line).map(|line| self.paint.text(Tone::Strong, &line)).collect()
    }

    fn label(&self, story: &Story, moment: Moment) -> String {
        match moment {
            Moment::Fault => self.fault.done().to_owned(),
            Moment::Outage => format!("outage{}", after(story.time_to_detect())),
            Moment::Repair => self.fault.repair().unwrap_or_default().to_owned(),
            Moment::Answers => "answers".to_owned(),
            Moment::Recovery => format!("recovered{}", after(story.time_to_return())),
        }
    }
}

fn after(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!(" +{}", brief(time)))
}

/// Runs of equal cells: a colour is set once for each.
fn runs(cells: &[Cell]) -> impl Iterator<Item = (Cell, usize)> {
    cells.chunk_by(PartialEq::eq).map(|run| (run[0], run.len()))
}

/// Writes a mark into the first line where it does not touch another: `▲ label`, or `label ▲` where the row would end.
fn place(lines: &mut Vec<Vec<char>>, column: usize, label: &str, arrow: char, width: usize) {
    let length = label.chars().count() + 2;
    let (from, text) = if column + length <= width || column + 1 < length {
        (column, format!("{arrow} {label}"))
    } else {
        (column + 1 - length, format!("{label} {arrow}"))
    };
    let touches = |line: &Vec<char>| {
        let around = from.saturating_sub(1)..(from + length + 1).min(line.len());
        line.get(around).is_some_and(|part| part.iter().any(|glyph| *glyph != ' '))
    };
    let index = lines.iter().position(|line| !touches(line)).unwrap_or(lines.len());
    if index == lines.len() {
        lines.push(Vec::new());
    }
    let line = &mut lines[index];
    line.resize(line.len().max(from + length), ' ');
    text.chars().enumerate().for_each(|(offset, glyph)| line[from + offset] = glyph);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paint = Paint { terminal: false, colour: false, unicode: false };

    fn timeline(columns: usize) -> Timeline {
        let layout = Layout { cell: Duration::from_millis(100), columns };
        Timeline { layout, paint: PLAIN, fault: Fault::Kill }
    }

    fn story(cells: &str) -> Story {
        let read = |(index, served): (usize, char)| {
            let served = match served {
                '#' => Ok(Place::Replica),
                '~' => Ok(Place::Primary),
                'X' => Err("refused".to_owned()),
                _ => return None,
            };
            Some(Read { ended: Duration::from_millis(100 * index as u64 + 10), served, retried: None })
        };
        Story { reads: cells.chars().enumerate().filter_map(read).collect(), ..Story::default() }
    }

    #[test]
    fn reads_are_drawn_where_they_went_row_by_row() {
        let rows = timeline(10).rows(&story("#####.~~~~~X##"), 0, Duration::from_millis(1399));
        assert_eq!(rows, ["   0.0 s #####.~~~~", "   1.0 s ~X##"]);
    }

    #[test]
    fn moments_stand_below_their_cells_and_never_touch() {
        let mut story = story("#####~~~~~~~~~~~~###");
        let at = |ms| Duration::from_millis(ms);
        story.moments = vec![
            (Moment::Fault, at(510)),
            (Moment::Outage, at(513)),
            (Moment::Repair, at(1100)),
            (Moment::Recovery, at(1900)),
        ];
        let rows = timeline(20).rows(&story, 0, at(1999));
        assert_eq!(rows[0], "   0.0 s #####~~~~~~~~~~~~###");
        assert_eq!(rows[1], "              ^ killed");
        assert_eq!(rows[2], "              ^ outage +3.0 ms");
        assert_eq!(rows[3], "          restarted ^");
        assert_eq!(rows[4], "                  recovered ^");
    }

    #[test]
    fn the_layout_is_as_fine_as_the_width_allows() {
        let time = Duration::from_secs(8);
        assert_eq!(Layout::of(100, time), Layout { cell: Duration::from_millis(50), columns: 90 });
        assert_eq!(Layout::of(60, time), Layout { cell: Duration::from_millis(100), columns: 50 });
        assert_eq!(Layout::of(0, time).columns, 10);
    }
}
