//! Reads the configuration of transformers' image processors.
//!
//! A key that is missing or null has the default of its class; the defaults are those of transformers 5.24, which fails on
//! many keys that are null. Keys that do not affect the tensors are ignored.

use std::path::Path;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Preprocess, Target};
use crate::{imaging::Filter, models::model_dir::FileError};

/// OpenAI's statistics, the default of CLIP.
const OPENAI_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const OPENAI_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// The mean and the deviation that map 0 to 1 onto -1 to 1, the default of all others.
const HALF: [f64; 3] = [0.5; 3];

/// From this size on, ConvNeXt resizes images to the size itself and crops nothing.
const CONVNEXT_UNCROPPED: u32 = 384;

/// The defaults of a class.
#[derive(Debug)]
struct Class {
    /// Without `ImageProcessor`, or `FeatureExtractor`, as it was once called.
    name: &'static str,
    size: Target,
    /// Whether an integer as `size` stands for both sides, and not for the shorter one.
    square: bool,
    center_crop: bool,
    crop_size: Option<(u32, u32)>,
    filter: Filter,
    mean: [f64; 3],
    std: [f64; 3],
    /// Whether it has `crop_pct`: images are resized to the size divided by it, and cropped to the size.
    crop_pct: bool,
}

const CLIP: Class = Class {
    name: "CLIP",
    size: Target::ShortestEdge(224),
    square: false,
    center_crop: true,
    crop_size: Some((224, 224)),
    filter: Filter::Bicubic,
    mean: OPENAI_MEAN,
    std: OPENAI_STD,
    crop_pct: false,
};

const VIT: Class = Class {
    name: "ViT",
    size: Target::Exactly(224, 224),
    square: true,
    center_crop: false,
    crop_size: None,
    filter: Filter::Bilinear,
    mean: HALF,
    std: HALF,
    crop_pct: false,
};

const CLASSES: [Class; 6] = [
    CLIP,
    Class { name: "Bit", ..CLIP },
    VIT,
    Class {
        name: "DeiT",
        size: Target::Exactly(256, 256),
        filter: Filter::Bicubic,
        mean: HALF,
        std: HALF,
        square: true,
        ..CLIP
    },
    Class { name: "Siglip", square: false, filter: Filter::Bicubic, ..VIT },
    Class {
        name: "ConvNext",
        size: Target::ShortestEdge(CONVNEXT_UNCROPPED),
        square: false,
        filter: Filter::Bicubic,
        crop_pct: true,
        ..VIT
    },
];

/// A size as the versions of transformers write it.
#[derive(Debug, Default, Deserialize)]
struct Sides {
    height: Option<u32>,
    width: Option<u32>,
    shortest_edge: Option<u32>,
    longest_edge: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Edge(u32),
    Sides(Sides),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PerChannel {
    Each([f64; 3]),
    All(f64),
}

/// The keys of a file whose path is in messages.
struct Keys<'a> {
    keys: &'a Value,
    path: &'a Path,
}

impl Keys<'_> {
    /// Returns a value, or `None` if it is missing or null.
    fn get<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, FileError> {
        let Some(value) = self.keys.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        let unexpected = |_| self.unsupported(key, value.to_string(), "expected another kind of value");
        T::deserialize(value).map(Some).map_err(unexpected)
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool, FileError> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    fn unsupported(&self, key: &'static str, found: impl Into<String>, allowed: &str) -> FileError {
        FileError::unsupported(self.path, key, found, allowed)
    }

    fn class(&self) -> Result<&'static Class, FileError> {
        let key =
            ["image_processor_type", "feature_extractor_type"].into_iter().find(|key| self.keys[*key].is_string());
        let Some(key) = key else { return Ok(&CLIP) };
        let found = self.keys[key].as_str().unwrap_or_default();
        let name = ["Fast", "Pil"].into_iter().fold(found, |name, end| name.strip_suffix(end).unwrap_or(name));
        let name =
            name.strip_suffix("ImageProcessor").or_else(|| name.strip_suffix("FeatureExtractor")).unwrap_or(name);
        CLASSES.iter().find(|class| class.name == name).ok_or_else(|| {
            let known: Vec<String> = CLASSES.iter().map(|class| format!("`{}ImageProcessor`", class.name)).collect();
            self.unsupported(key, format!("`{found}`"), &format!("supported are {}", known.join(", ")))
        })
    }

    /// Returns the target of a resize: `size`, or the default of the class.
    fn size(&self, class: &Class) -> Result<Target, FileError> {
        let Some(size) = self.get::<Size>("size")? else { return Ok(class.size) };
        match size {
            Size::Edge(edge) if class.square => Ok(Target::Exactly(edge, edge)),
            Size::Edge(edge) | Size::Sides(Sides { shortest_edge: Some(edge), longest_edge: None, .. }) => {
                Ok(Target::ShortestEdge(edge))
            }
            Size::Sides(Sides {
                height: Some(height),
                width: Some(width),
                shortest_edge: None,
                longest_edge: None,
                ..
            }) => Ok(Target::Exactly(width, height)),
            Size::Sides(Sides { .. }) => {
                let allowed = "supported are `height` and `width`, or `shortest_edge` alone";
                Err(self.unsupported("size", self.keys["size"].to_string(), allowed))
            }
        }
    }

    /// Returns the width and height of the crop, if images are cropped. transformers does not crop if `do_center_crop` is
    /// null; neither does this, unless the images would then have no size in common.
    fn crop(&self, class: &Class, resized: Target) -> Result<Option<(u32, u32)>, FileError> {
        let is_null = self.keys.get("do_center_crop").is_some_and(Value::is_null);
        let default = class.center_crop && !(is_null && matches!(resized, Target::Exactly(..)));
        if !self.flag("do_center_crop", default)? {
            return Ok(None);
        }
        let sides = match self.get::<Size>("crop_size")? {
            None => class.crop_size,
            Some(Size::Edge(edge)) => Some((edge, edge)),
            Some(Size::Sides(Sides { height: Some(height), width: Some(width), .. })) => Some((width, height)),
            Some(Size::Sides(Sides { shortest_edge: Some(edge), .. })) => Some((edge, edge)),
            Some(Size::Sides(_)) => None,
        };
        let missing =
            || self.unsupported("crop_size", self.keys["crop_size"].to_string(), "it needs `height` and `width`");
        sides.map(Some).ok_or_else(missing)
    }

    /// Returns the filter of a resize: Pillow's code, or its name.
    fn filter(&self, class: &Class) -> Result<Filter, FileError> {
        let Some(value) = self.get::<Value>("resample")? else { return Ok(class.filter) };
        let name = value.as_str().map(|name| name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase());
        match (value.as_u64(), name.as_deref()) {
            (Some(1), _) | (_, Some("lanczos" | "antialias")) => Ok(Filter::Lanczos),
            (Some(2), _) | (_, Some("bilinear" | "linear")) => Ok(Filter::Bilinear),
            (Some(3), _) | (_, Some("bicubic" | "cubic")) => Ok(Filter::Bicubic),
            _ => {
                let allowed = "supported are 1 (lanczos), 2 (bilinear) and 3 (bicubic)";
                Err(self.unsupported("resample", value.to_string(), allowed))
            }
        }
    }

    fn per_channel(&self, key: &'static str, default: [f64; 3]) -> Result<[f64; 3], FileError> {
        Ok(match self.get::<PerChannel>(key)? {
            None => default,
            Some(PerChannel::Each(values)) => values,
            Some(PerChannel::All(value)) => [value; 3],
        })
    }

    /// Checks the steps that always are the same here: no padding, and values divided by 255.
    fn check_fixed_steps(&self) -> Result<(), FileError> {
        for key in ["do_pad", "use_square_size", "do_flip_channel_order"] {
            if self.flag(key, false)? {
                return Err(self.unsupported(key, "true", "only false is supported"));
            }
        }
        let factor: f64 = self.get("rescale_factor")?.unwrap_or(1.0 / 255.0);
        let found = match self.flag("do_rescale", true)? {
            true if (factor - 1.0 / 255.0).abs() <= 1e-9 => return Ok(()),
            true => factor.to_string(),
            false => "off".to_owned(),
        };
        Err(self.unsupported("rescale_factor", found, "only 1/255 is supported"))
    }
}

/// Returns the steps that the keys of an image processor describe; `path` names the file in messages.
pub(super) fn preprocess(keys: &Value, path: &Path) -> Result<Preprocess, FileError> {
    let keys = Keys { keys, path };
    let class = keys.class()?;
    keys.check_fixed_steps()?;
    let (mut size, filter) = (keys.size(class)?, keys.filter(class)?);
    let mut crop = keys.crop(class, size)?;
    let do_resize = keys.flag("do_resize", true)?;
    if class.crop_pct && do_resize {
        if crop.is_some() {
            return Err(keys.unsupported("do_center_crop", "true", "this class crops by `crop_pct`"));
        }
        let Target::ShortestEdge(edge) = size else {
            return Err(keys.unsupported("size", keys.keys["size"].to_string(), "this class needs `shortest_edge`"));
        };
        let crop_pct = keys.get("crop_pct")?.unwrap_or(224.0 / 256.0);
        (size, crop) = by_crop_pct(edge, crop_pct).ok_or_else(|| {
            keys.unsupported("crop_pct", crop_pct.to_string(), "more than 0.05, and at most 1, is supported")
        })?;
    }
    let (mean, std) = match keys.flag("do_normalize", true)? {
        true => (keys.per_channel("image_mean", class.mean)?, keys.per_channel("image_std", class.std)?),
        false => ([0.0; 3], [1.0; 3]),
    };
    Ok(Preprocess { resize: do_resize.then_some((size, filter)), crop, mean, std })
}

/// Returns the target of the resize and the crop of ConvNeXt; `None` if the share cannot be used.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded down, as transformers does")]
fn by_crop_pct(edge: u32, crop_pct: f64) -> Option<(Target, Option<(u32, u32)>)> {
    if edge >= CONVNEXT_UNCROPPED {
        return Some((Target::Exactly(edge, edge), None));
    }
    let resized = (0.05..=1.0).contains(&crop_pct).then(|| (f64::from(edge) / crop_pct) as u32)?;
    Some((Target::ShortestEdge(resized), Some((edge, edge))))
}
