//! A page of docs/adopt, and the programs it speaks of.

use std::{fs, path::Path};

use super::{Tested, diff::Diff};

/// Lines that an application changes at most, and those it should.
const MUST: usize = 10;
const AIM: usize = 5;

/// A guide for one stack.
pub(crate) struct Guide {
    stack: &'static str,
    text: String,
}

impl Guide {
    pub(crate) fn of(stack: &'static str) -> Tested<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/adopt/{stack}.md"));
        Ok(Self { stack, text: fs::read_to_string(path)? })
    }

    /// What stands in its code blocks of this language.
    pub(crate) fn blocks(&self, language: &str) -> Vec<String> {
        let fence = format!("```{language}\n");
        let block = |rest: &str| rest.split_once("```\n").map(|(block, _)| block.to_owned());
        self.text.split(&fence).skip(1).filter_map(block).collect()
    }

    /// The configuration it gives.
    pub(crate) fn configuration(&self) -> Tested<String> {
        Ok(self
            .blocks("toml")
            .into_iter()
            .find(|block| block.contains("[alias."))
            .ok_or("no pgdetour.toml in the guide")?)
    }

    /// Its diffs are those of these programs, one after the other. How many lines the first changes.
    pub(crate) fn shows(&self, programs: &[&str]) -> Tested<usize> {
        let read = |program: &&str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/adopt").join(self.stack);
            fs::read_to_string(path.join(format!("{program}.rs")))
        };
        let programs = programs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let diffs: Vec<_> = programs.windows(2).map(|pair| Diff::between(&pair[0], &pair[1])).collect();
        let wanted: Vec<_> = diffs.iter().map(Diff::shown).collect();
        let shown = self.blocks("diff");
        let shown: Vec<_> = shown.into_iter().filter(|block| !block.contains("[dependencies]")).collect();
        assert_eq!(
            shown,
            wanted,
            "docs/adopt/{}.md is to show:\n```diff\n{}```",
            self.stack,
            wanted.join("```\n```diff\n")
        );
        Ok(diffs.first().map_or(0, Diff::changed))
    }

    /// The same, for one where the first changes few lines.
    pub(crate) fn shows_few(&self, programs: &[&str]) -> Tested {
        let changed = self.shows(programs)?;
        println!("{}: {changed} lines changed, of {MUST} at most, {AIM} at best", self.stack);
        assert!(changed <= MUST, "{}: {changed} lines", self.stack);
        Ok(())
    }
}
