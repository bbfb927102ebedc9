//! Embeddings: always of length one, so that an inner product is a cosine.

use super::limits::DIMENSIONS_MAX;
use crate::error::{Code, Error, Result};

/// A unit vector of 1 to [`DIMENSIONS_MAX`] dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector(Vec<f32>);

/// Rounding each number to its 11 significant bits changes the length by less.
const HALF_PRECISION: f64 = 1.0 / 2048.0;

impl Vector {
    /// Normalises `values` to length one. What has it already, but for the rounding of half precision, stays as it is: an
    /// embedding that was exported and comes back is the same to the last bit.
    ///
    /// # Errors
    /// [`Code::InvalidVector`] when it is empty, too long, not finite, or zero; the pointer is relative to the vector.
    pub fn new(mut values: Vec<f32>) -> Result<Self> {
        let invalid = |detail: String| {
            Err(Error::new(Code::InvalidVector, "The vector is not usable.").with_violation("", detail))
        };
        if values.is_empty() || values.len() > DIMENSIONS_MAX {
            return invalid(format!("must have 1 to {DIMENSIONS_MAX} numbers, not {}", values.len()));
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return invalid(format!("number {index} is not finite"));
        }
        // In f64: squares of large but finite f32 values overflow f32.
        let norm = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if norm == 0.0 {
            return invalid("is zero, so it has no direction".to_owned());
        }
        if (norm - 1.0).abs() > HALF_PRECISION {
            for value in &mut values {
                *value = (f64::from(*value) / norm) as f32;
            }
        }
        Ok(Self(values))
    }

    pub fn dimensions(&self) -> usize {
        self.0.len()
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_even_huge_values() {
        let vector = Vector::new(vec![3e38, 0.0, 3e38]).unwrap();
        let norm: f32 = vector.as_slice().iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-6);
    }

    #[test]
    fn refuses_what_has_no_direction() {
        for values in
            [vec![], vec![0.0; 3], vec![f32::NAN], vec![f32::INFINITY, 1.0], vec![1.0; DIMENSIONS_MAX + 1]]
        {
            assert_eq!(Vector::new(values).unwrap_err().code, Code::InvalidVector);
        }
        assert!(Vector::new(vec![1.0; DIMENSIONS_MAX]).is_ok());
    }
}
