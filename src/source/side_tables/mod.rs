//! Tables of the user's own beside the data set: descriptions and common names of classes, class probabilities of images.

mod common_names;
mod confidences;
mod descriptions;
mod texts;

pub use common_names::{CommonNames, check_excluded, common_names};
pub use confidences::confidences;
pub use descriptions::descriptions;
pub(super) use texts::read_json;
pub use texts::{Line, lines};
