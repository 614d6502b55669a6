//! Names of choices, as a file or a command line has them.

/// Gives a choice its names: `FromStr`, which refuses all others, and `Display`.
macro_rules! named {
    ($choice:ident, $what:literal, $($variant:ident => $name:literal),+) => {
        impl std::str::FromStr for $choice {
            type Err = $crate::experiment::learner::LearnerError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::experiment::learner::LearnerError::Unknown {
                        what: $what,
                        found: text.to_owned(),
                        known: [$(concat!("`", $name, "`")),+].join(", "),
                    }),
                }
            }
        }

        impl std::fmt::Display for $choice {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $name),+
                })
            }
        }
    };
}

pub(super) use named;

#[cfg(test)]
mod tests {
    use crate::experiment::learner::{Architecture, Loss, Sampling, Schedule};

    #[test]
    fn a_name_reads_as_what_wrote_it() {
        for architecture in [Architecture::SoftmaxRegression, Architecture::Mlp, Architecture::Cnn] {
            assert_eq!(architecture.to_string().parse::<Architecture>().unwrap(), architecture);
        }
        for loss in [Loss::CrossEntropy, Loss::BalancedSoftmax, Loss::LogitAdjustment] {
            assert_eq!(loss.to_string().parse::<Loss>().unwrap(), loss);
        }
        for sampling in [Sampling::Plain, Sampling::ClassBalanced] {
            assert_eq!(sampling.to_string().parse::<Sampling>().unwrap(), sampling);
        }
        for schedule in [Schedule::Constant, Schedule::Cosine] {
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = "resnet".parse::<Architecture>().unwrap_err();
        assert_eq!(error.to_string(), "unknown architecture `resnet`; valid are `softmax`, `mlp`, `cnn`");
    }
}
