//! The names that the variants of an enum have in files and tables.

/// Implements `FromStr` and `Display` for an enum. `FromStr` rejects all other names.
macro_rules! named {
    ($enum:ident, $kind:literal, $($variant:ident => $name:literal),+) => {
        impl std::str::FromStr for $enum {
            type Err = $crate::experiment::learner::LearnerError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::experiment::learner::LearnerError::UnknownName {
                        kind: $kind,
                        found: text.to_owned(),
                        allowed: [$(concat!("`", $name, "`")),+].join(", "),
                    }),
                }
            }
        }

        impl std::fmt::Display for $enum {
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
    use crate::experiment::learner::{Architecture, LearningRateSchedule, Loss, Sampling};

    #[test]
    fn names_survive_a_round_trip() {
        for architecture in [Architecture::SoftmaxRegression, Architecture::Mlp, Architecture::Cnn] {
            assert_eq!(architecture.to_string().parse::<Architecture>().unwrap(), architecture);
        }
        for loss in [Loss::CrossEntropy, Loss::BalancedSoftmax, Loss::LogitAdjustment] {
            assert_eq!(loss.to_string().parse::<Loss>().unwrap(), loss);
        }
        for sampling in [Sampling::Plain, Sampling::ClassBalanced] {
            assert_eq!(sampling.to_string().parse::<Sampling>().unwrap(), sampling);
        }
        for schedule in [LearningRateSchedule::Constant, LearningRateSchedule::Cosine] {
            assert_eq!(schedule.to_string().parse::<LearningRateSchedule>().unwrap(), schedule);
        }
    }

    #[test]
    fn the_error_for_an_unknown_name_lists_the_known_ones() {
        let error = "resnet".parse::<Architecture>().unwrap_err();
        assert_eq!(error.to_string(), "unknown architecture `resnet`; valid values are `softmax`, `mlp`, `cnn`");
    }
}
