//! How an image becomes a tensor, as transformers' image processors do it: for CLIP, Bit, ViT, DeiT, SigLIP and ConvNeXt.
//!
//! `preprocessor_config.json` describes it or, since transformers 5, `image_processor` in `processor_config.json`.

mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::path::Path;

use image::RgbImage;
use serde_json::Value;

use super::model_dir::{FileError, read_config};
use crate::imaging::{Filter, ImageError, center_crop, resize, to_chw};

/// The file with the processors of a model, of which the image processor is one.
const ALL_PROCESSORS: &str = "processor_config.json";

/// The key of the image processor in that file.
const NESTED: &str = "image_processor";

/// The file of the image processor alone.
const IMAGE_PROCESSOR: &str = "preprocessor_config.json";

/// The longest side of a resize or a crop, in pixels. Vision models use a few hundred; 3 x 4096 x 4096 floats are 192 MiB.
const MAX_SIDE: u32 = 4096;

/// The most pixels that an image may have after it is resized by its shorter side: the same limit as for decoding. An
/// image of 16384 x 1 would otherwise grow to 800 million.
const MAX_PIXELS: u64 = 64 << 20;

/// The steps of preprocessing, in order. The file can turn each of them off.
#[derive(Debug, Clone)]
pub(crate) struct Preprocess {
    resize: Option<(Target, Filter)>,
    crop: Option<(u32, u32)>,
    mean: [f64; 3],
    std: [f64; 3],
}

/// The size to which an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The shorter side has this many pixels; the other keeps the aspect ratio.
    ShortestEdge(u32),
    /// Width and height, whatever the aspect ratio.
    Exactly(u32, u32),
}

impl Preprocess {
    /// Returns the name of the file in a model's folder that describes the preprocessing. As in transformers 5,
    /// `processor_config.json` comes first if it has an image processor.
    ///
    /// # Errors
    /// Returns an error if `processor_config.json` exists and cannot be read.
    pub(crate) fn file_in(dir: &Path) -> Result<&'static str, FileError> {
        let all = dir.join(ALL_PROCESSORS);
        let has_image_processor = all.is_file() && read_config::<Value>(&all)?.get(NESTED).is_some();
        Ok(if has_image_processor { ALL_PROCESSORS } else { IMAGE_PROCESSOR })
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if a key that affects the tensors has an unsupported value.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        Self::from_keys(&read_config(path)?, path)
    }

    /// Interprets the file's keys; `path` names it in messages.
    ///
    /// # Errors
    /// Returns an error if a key that affects the tensors has an unsupported value.
    pub(crate) fn from_keys(keys: &Value, path: &Path) -> Result<Self, FileError> {
        let read = config::preprocess(keys.get(NESTED).unwrap_or(keys), path)?;
        match read.out_of_range() {
            Some((key, found, allowed)) => Err(FileError::unsupported(path, key, found, allowed)),
            None => Ok(read),
        }
    }

    /// Returns the first value that does not lead to a usable tensor: its key, the value, and what is allowed.
    fn out_of_range(&self) -> Option<(&'static str, String, &'static str)> {
        const SIDES: &str = "1 to 4096 pixels are supported";
        let (width, height) = match self.resize {
            Some((Target::Exactly(width, height), _)) => (width, height),
            Some((Target::ShortestEdge(edge), _)) => (edge, edge),
            None => (1, 1),
        };
        let crop = self.crop.unwrap_or((1, 1));
        for (key, (width, height)) in [("size", (width, height)), ("crop_size", crop)] {
            if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
                return Some((key, format!("{width} x {height}"), SIDES));
            }
        }
        if !self.mean.iter().all(|value| value.abs() <= 1e6) {
            return Some(("image_mean", format!("{:?}", self.mean), "numbers from -1e6 to 1e6 are supported"));
        }
        if !self.std.iter().all(|value| (1e-6..=1e6).contains(value)) {
            return Some(("image_std", format!("{:?}", self.std), "numbers from 1e-6 to 1e6 are supported"));
        }
        None
    }

    /// Returns the same preprocessing without the crop. The whole image is resized to the size of the crop, whatever
    /// its aspect ratio, so that nothing at its edges is lost.
    pub(crate) fn of_whole_frame(self) -> Self {
        let Some((width, height)) = self.crop else { return self };
        let filter = self.resize.map_or(Filter::Bicubic, |(_, filter)| filter);
        Self { resize: Some((Target::Exactly(width, height), filter)), crop: None, ..self }
    }

    /// Returns the width and height of the result, if they do not depend on the image.
    pub(crate) fn output(&self) -> Option<(u32, u32)> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some(crop),
            (None, Some((Target::Exactly(width, height), _))) => Some((width, height)),
            _ => None,
        }
    }

    /// Returns the width and height of the result; `path` is that of the file.
    ///
    /// # Errors
    /// Returns [`FileError::Unsupported`] if they depend on the image.
    pub(crate) fn fixed_output(&self, path: &Path) -> Result<(u32, u32), FileError> {
        let allowed = "images need a fixed size: a crop, or a height and a width to resize to";
        self.output().ok_or_else(|| FileError::unsupported(path, "do_center_crop", "off", allowed))
    }

    /// Returns the means and standard deviations of red, green and blue, by which values of 0 to 1 are normalized.
    pub(crate) fn normalization(&self) -> ([f64; 3], [f64; 3]) {
        (self.mean, self.std)
    }

    /// Converts an image to [3, height, width].
    ///
    /// # Errors
    /// Returns the errors of [`resize`], and [`ImageError::TooManyPixels`] if one side is so short that the other would
    /// become too long.
    #[expect(clippy::cast_possible_truncation, reason = "tensors are f32")]
    pub(crate) fn apply(&self, image: &RgbImage) -> Result<Vec<f32>, ImageError> {
        let resized = match self.resize {
            None => None,
            Some((target, filter)) => {
                let (width, height) = target.sides(image.dimensions());
                if u64::from(width) * u64::from(height) > MAX_PIXELS {
                    return Err(ImageError::TooManyPixels { width, height, limit: MAX_PIXELS });
                }
                Some(resize(image, width, height, filter)?)
            }
        };
        let image = resized.as_ref().unwrap_or(image);
        let cropped = self.crop.map(|(width, height)| center_crop(image, width, height));
        let [mean, std] = [self.mean, self.std].map(|channels| channels.map(|value| value as f32));
        Ok(to_chw(cropped.as_ref().unwrap_or(image), mean, std))
    }
}

impl Target {
    fn sides(self, (width, height): (u32, u32)) -> (u32, u32) {
        match self {
            Self::Exactly(width, height) => (width, height),
            Self::ShortestEdge(edge) => {
                // int(edge * long / short), in integers.
                let other = |long: u32, short: u32| {
                    u32::try_from(u64::from(edge) * u64::from(long) / u64::from(short.max(1))).unwrap_or(u32::MAX)
                };
                if width <= height { (edge, other(height, width)) } else { (other(width, height), edge) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    fn read(json: &str) -> Result<Preprocess, FileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        Preprocess::read(file.path())
    }

    #[test]
    fn sizes_have_three_notations() {
        let of = |size: &str| {
            let preprocess = read(&format!(r#"{{"size": {size}, "crop_size": 8}}"#)).unwrap();
            preprocess.resize.unwrap().0
        };
        assert_eq!(of("224"), Target::ShortestEdge(224));
        assert_eq!(of(r#"{"shortest_edge": 224}"#), Target::ShortestEdge(224));
        assert_eq!(of(r#"{"height": 5, "width": 6}"#), Target::Exactly(6, 5));
    }

    #[test]
    fn the_longer_side_is_rounded_down() {
        assert_eq!(Target::ShortestEdge(224).sides((500, 375)), (298, 224));
        assert_eq!(Target::ShortestEdge(224).sides((375, 500)), (224, 298));
        assert_eq!(Target::ShortestEdge(32).sides((1, 1)), (32, 32));
    }

    #[test]
    fn an_image_becomes_a_tensor_of_the_size_of_the_crop() {
        let preprocess = read(r#"{"size": 4, "crop_size": {"height": 2, "width": 4}, "do_normalize": false}"#).unwrap();
        assert_eq!(preprocess.output(), Some((4, 2)));
        let tensor = preprocess.apply(&RgbImage::from_pixel(9, 16, image::Rgb([255, 0, 51]))).unwrap();
        assert_eq!(tensor.len(), 3 * 8);
        assert_eq!([tensor[0], tensor[8], tensor[16]], [1.0, 0.0, 0.2]);
    }

    #[test]
    fn the_whole_frame_can_be_kept() {
        let json = r#"{"size": 4, "crop_size": 4, "do_normalize": false}"#;
        let left_half = RgbImage::from_fn(16, 4, |x, _| image::Rgb([if x < 4 { 255 } else { 0 }; 3]));
        let seen = |preprocess: Preprocess| preprocess.apply(&left_half).unwrap().iter().sum::<f32>();
        assert_eq!(seen(read(json).unwrap()), 0.0, "the crop keeps the middle");
        assert!(seen(read(json).unwrap().of_whole_frame()) > 6.0, "a quarter of 3 x 16 values");
        assert_eq!(read(json).unwrap().of_whole_frame().output(), Some((4, 4)));
    }

    #[derive(Deserialize)]
    struct Recorded {
        keys: Value,
        images: Vec<Seen>,
    }

    #[derive(Deserialize)]
    struct Seen {
        image: (u32, u32),
        shape: (usize, usize, usize),
        sum: f64,
        values: Vec<f32>,
    }

    /// `tests/fixtures/processors`: every class, and the ways in which versions of transformers write their keys.
    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "a value modulo 256")]
    fn tensors_equal_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/processors/processors.json");
        let recorded: BTreeMap<String, Recorded> = read_config(&path).unwrap();
        assert!(recorded.len() >= 10);
        for (name, Recorded { keys, images }) in recorded {
            let preprocess = Preprocess::from_keys(&keys, Path::new("file")).unwrap();
            for Seen { image: (width, height), shape, sum, values } in images {
                let value = |x: u32, y: u32, scale: u32, nth: u32| ((x * scale + y * y * nth) % 256) as u8;
                let image = RgbImage::from_fn(width, height, |x, y| {
                    image::Rgb([value(x, y, 7, 1), value(x, y, 5, 2), value(x, y, 3, 3)])
                });
                let tensor = preprocess.apply(&image).unwrap();
                let what = format!("{name} of {width} x {height}");
                assert_eq!(tensor.len(), shape.0 * shape.1 * shape.2, "{what}");
                let total: f64 = tensor.iter().map(|value| f64::from(*value)).sum();
                assert!((total - sum).abs() < 0.01, "{what}: the sum is {total}, not {sum}");
                for (index, expected) in values.iter().enumerate() {
                    let ours = tensor[index * (tensor.len() - 1) / 39];
                    assert!((ours - expected).abs() < 1e-5, "{what}: value {index} is {ours}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_processor_of_transformers_5_is_nested() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("preprocessor_config.json", r#"{"size": 8, "crop_size": 8}"#);
        write("processor_config.json", r#"{"processor_class": "CLIPProcessor"}"#);
        assert_eq!(Preprocess::file_in(dir.path()).unwrap(), "preprocessor_config.json");
        write("processor_config.json", r#"{"image_processor": {"size": 4, "crop_size": 4, "x": NaN}}"#);
        let file = Preprocess::file_in(dir.path()).unwrap();
        assert_eq!(file, "processor_config.json");
        assert_eq!(Preprocess::read(&dir.path().join(file)).unwrap().output(), Some((4, 4)));
    }

    #[test]
    fn null_is_the_default() {
        let of = |json: &str| read(json).unwrap();
        let clip =
            of(r#"{"do_center_crop": null, "do_rescale": null, "resample": null, "crop_size": null, "size": null}"#);
        assert_eq!(
            (clip.output(), clip.resize),
            (Some((224, 224)), Some((Target::ShortestEdge(224), Filter::Bicubic)))
        );
        let exact = of(r#"{"do_center_crop": null, "size": {"height": 336, "width": 336, "shortest_edge": null}}"#);
        assert_eq!(exact.output(), Some((336, 336)), "not cropped to the default of 224");
    }

    #[test]
    fn filters_have_names() {
        for (name, filter) in [("bicubic", Filter::Bicubic), ("PILImageResampling.LANCZOS", Filter::Lanczos)] {
            let preprocess = read(&format!(r#"{{"resample": "{name}"}}"#)).unwrap();
            assert_eq!(preprocess.resize.unwrap().1, filter);
        }
    }

    #[test]
    fn convnext_needs_a_size_that_its_crop_is_part_of() {
        let message = |keys: &str| {
            read(&format!(r#"{{"image_processor_type": "ConvNextImageProcessor", {keys}}}"#)).unwrap_err().to_string()
        };
        let sides = message(r#""size": {"height": 224, "width": 224}"#);
        assert!(sides.ends_with("this class needs `shortest_edge`"), "{sides}");
        let share = message(r#""size": 224, "crop_pct": 1.5"#);
        assert!(share.ends_with("`crop_pct` is 1.5; more than 0.05, and at most 1, is supported"), "{share}");
        let twice = message(r#""size": 224, "do_center_crop": true, "crop_size": 100"#);
        assert!(twice.ends_with("`do_center_crop` is true; this class crops by `crop_pct`"), "{twice}");
    }

    #[test]
    fn a_vit_has_its_own_defaults() {
        let preprocess = read(r#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 2, "width": 4}}"#);
        let preprocess = preprocess.unwrap();
        assert_eq!((preprocess.output(), preprocess.mean, preprocess.std), (Some((4, 2)), [0.5; 3], [0.5; 3]));
        let other = read(r#"{"image_processor_type": "SamImageProcessor"}"#).unwrap_err().to_string();
        assert!(other.contains("`image_processor_type` is `SamImageProcessor`; supported are"), "{other}");
    }

    #[test]
    fn sizes_that_no_model_uses_are_rejected() {
        let refused = |json: &str, end: &str| {
            let message = read(json).unwrap_err().to_string();
            assert!(message.ends_with(end), "{message}");
        };
        refused(r#"{"size": 4000000000}"#, "`size` is 4000000000 x 4000000000; 1 to 4096 pixels are supported");
        refused(r#"{"crop_size": 4097}"#, "`crop_size` is 4097 x 4097; 1 to 4096 pixels are supported");
        refused(r#"{"crop_size": 0}"#, "`crop_size` is 0 x 0; 1 to 4096 pixels are supported");
        refused(r#"{"size": {"height": 0, "width": 3}}"#, "`size` is 3 x 0; 1 to 4096 pixels are supported");
        refused(
            r#"{"image_std": [1, 0, 1]}"#,
            "`image_std` is [1.0, 0.0, 1.0]; numbers from 1e-6 to 1e6 are supported",
        );
        refused(r#"{"image_mean": [1, 1e39, 1]}"#, "numbers from -1e6 to 1e6 are supported");
        assert!(
            read(r#"{"size": 0, "do_resize": false, "crop_size": 8}"#).is_ok(),
            "a step that is off is not checked"
        );
    }

    #[test]
    fn a_thin_image_does_not_become_huge() {
        let error = read("{}").unwrap().apply(&RgbImage::new(16_384, 1)).unwrap_err().to_string();
        assert_eq!(error, "the image is 3670016 x 224 pixels, more than the limit of 67108864 pixels");
    }

    #[test]
    fn unsupported_values_are_reported() {
        let message = |json: &str| read(json).unwrap_err().to_string();
        let nearest = message(r#"{"size": 4, "resample": 0}"#);
        assert!(
            nearest.ends_with("`resample` is 0; supported are 1 (lanczos), 2 (bilinear) and 3 (bicubic)"),
            "{nearest}"
        );
        let off = message(r#"{"size": 4, "do_rescale": false}"#);
        assert!(off.ends_with("`rescale_factor` is off; only 1/255 is supported"), "{off}");
        assert!(message("{\"size\": []}").ends_with("`size` is []; expected another kind of value"));
    }
}
