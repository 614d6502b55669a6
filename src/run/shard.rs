//! One of several workers of a pipeline, and the units that belong to it.

use std::{fmt, num::NonZeroU32, str::FromStr};

use crate::identity::Digest;

/// The worker `index`, from 0, of `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    index: u32,
    count: NonZeroU32,
}

/// The string is not a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{0}`, expected I/N with I from 0 to N - 1, such as 0/4")]
pub(crate) struct ParseShardError(String);

impl FromStr for Shard {
    type Err = ParseShardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        let shard = parsed.map(|(index, count)| Self { index, count });
        shard.filter(|shard| shard.index < shard.count.get()).ok_or_else(|| ParseShardError(text.to_owned()))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// Variables of batch systems: the worker's number, the first number if it can be other than 0, and the number of
/// workers.
const SYSTEMS: [(&str, Option<&str>, &str); 3] = [
    ("AWS_BATCH_JOB_ARRAY_INDEX", None, "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("SLURM_ARRAY_TASK_ID", Some("SLURM_ARRAY_TASK_MIN"), "SLURM_ARRAY_TASK_COUNT"),
    // Kubernetes has no variable for the number of workers: a job sets this one to its `completions`.
    ("JOB_COMPLETION_INDEX", None, "JOB_COMPLETIONS"),
];

impl Shard {
    /// Returns the shard that a batch system assigns to this process, and the variable that holds it; `None` outside of
    /// array jobs.
    ///
    /// # Errors
    /// Returns a message if the variables do not form a shard.
    pub(crate) fn of_batch_system(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<(Self, &'static str)>, String> {
        let Some((name, first, count)) = SYSTEMS.into_iter().find(|(index, _, _)| variable(index).is_some()) else {
            return Ok(None);
        };
        let number = |name: &str| -> Result<u32, String> {
            let text =
                variable(name).ok_or_else(|| format!("`{name}` is not set; it has to hold the number of workers"))?;
            text.parse().map_err(|_| format!("`{name}` is `{text}`, which is not a number"))
        };
        let first = first.filter(|first| variable(first).is_some()).map_or(Ok(0), number)?;
        let (index, count) = (number(name)?, number(count)?);
        let text = format!("{}/{count}", i64::from(index) - i64::from(first));
        let shard = text.parse().map_err(|error: ParseShardError| format!("`{name}` is not a shard: {error}"))?;
        Ok(Some((shard, name)))
    }

    /// Whether the units of `key` belong to this worker. Nothing but the key decides.
    pub(crate) fn owns(self, key: &str) -> bool {
        Digest::new("shard").text(key).draw(u64::from(self.count.get())) == u64::from(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_owner() {
        let shards: Vec<Shard> = (0..3).map(|index| format!("{index}/3").parse().unwrap()).collect();
        let owners = |key: &str| shards.iter().filter(|shard| shard.owns(key)).count();
        let keys: Vec<String> = (0..300).map(|key| format!("{key:08}")).collect();
        assert!(keys.iter().all(|key| owners(key) == 1));
        let first = keys.iter().filter(|key| shards[0].owns(key)).count();
        assert!((70..130).contains(&first), "{first} of 300");
    }

    #[test]
    fn invalid_shards_are_rejected() {
        for text in ["", "1", "3/3", "-1/3", "1/0", "a/b"] {
            let error = text.parse::<Shard>().unwrap_err().to_string();
            assert_eq!(error, format!("found `{text}`, expected I/N with I from 0 to N - 1, such as 0/4"));
        }
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
    }

    #[test]
    fn batch_systems_assign_a_shard() {
        let of = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            Shard::of_batch_system(find).map(|found| found.map(|(shard, from)| format!("{shard} {from}")))
        };
        assert_eq!(of(&[]), Ok(None));
        let batch = [("AWS_BATCH_JOB_ARRAY_INDEX", "1"), ("AWS_BATCH_JOB_ARRAY_SIZE", "4")];
        assert_eq!(of(&batch), Ok(Some("1/4 AWS_BATCH_JOB_ARRAY_INDEX".into())));
        let slurm = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "3")];
        assert_eq!(of(&slurm), Ok(Some("2/3 SLURM_ARRAY_TASK_ID".into())));
        let lonely = of(&[("JOB_COMPLETION_INDEX", "0")]).unwrap_err();
        assert!(lonely.contains("`JOB_COMPLETIONS` is not set"), "{lonely}");
        assert!(of(&[("JOB_COMPLETION_INDEX", "5"), ("JOB_COMPLETIONS", "5")]).is_err());
    }
}
