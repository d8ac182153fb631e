//! Publishes tables. Of a thousand lines one changes at a time: the table before the last is taken back, brought up to date and
//! changed, so that nothing is copied but what has changed. Only where somebody still reads it all is.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::plan::Table;

/// What the next table is made of.
#[derive(Debug, Default)]
pub(super) struct Press {
    /// The table before the one that is published, and the lines by which they differ.
    spare: Option<(Table, Vec<usize>)>,
}

impl Press {
    /// A table like the one that is published.
    pub(super) fn draft(&mut self, published: &ArcSwap<Table>) -> Table {
        let published = published.load();
        match self.spare.take() {
            Some((mut table, behind)) => {
                table.catch_up(&published, &behind);
                table
            }
            None => Table::clone(&published),
        }
    }

    /// Publishes a draft of which these lines were changed.
    pub(super) fn publish(&mut self, published: &ArcSwap<Table>, draft: Table, changed: Vec<usize>) {
        let before = published.swap(Arc::new(draft));
        self.spare = Arc::into_inner(before).map(|before| (before, changed));
    }
}
