//! The numbers: near the f32 model, of length one, the same alone and in any company.

use embedder::{DIMENSIONS, Keep, TOKENS_MAX};

use crate::{EMBEDDER, compute, cosine, sentences};

/// Vectors of the f32 weights, computed in f64 by `model/make.py`, kept as little-endian half floats.
fn reference() -> Vec<Vec<f32>> {
    let values: Vec<f32> = include_bytes!("../data/reference.f16")
        .chunks_exact(2)
        .map(|bytes| {
            let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
            let fraction = f32::from(bits & 0x3ff) / 1024.0;
            let exponent = i32::from((bits >> 10) & 0x1f);
            let size = if exponent == 0 {
                fraction * 2f32.powi(-14)
            } else {
                (1.0 + fraction) * 2f32.powi(exponent - 15)
            };
            if bits >> 15 == 1 { -size } else { size }
        })
        .collect();
    values.chunks_exact(DIMENSIONS).map(<[f32]>::to_vec).collect()
}

#[test]
fn the_reference_is_the_published_model() {
    let expected = [-0.034_477, 0.031_023, 0.006_735, 0.026_109, -0.039_362];
    for (found, expected) in reference()[0].iter().zip(expected) {
        assert!((found - expected).abs() < 2e-5, "{found} {expected}");
    }
}

#[test]
fn every_sentence_is_within_a_cosine_of_0_99_of_the_reference() {
    let (sentences, reference) = (sentences(), reference());
    let found = EMBEDDER.embed_blocking(&sentences).unwrap();
    let mut cosines: Vec<f32> = found.iter().zip(&reference).map(|(a, b)| cosine(a, b)).collect();
    for (cosine, sentence) in cosines.iter().zip(&sentences) {
        assert!(*cosine >= 0.99, "{cosine} {sentence}");
    }
    cosines.sort_by(f32::total_cmp);
    println!("cosine: min {}, median {}", cosines[0], cosines[100]);
    assert!(cosines[100] >= 0.998, "median {}", cosines[100]);
}

#[test]
fn neighbours_are_those_of_the_reference() {
    let (sentences, reference) = (sentences(), reference());
    let found = EMBEDDER.embed_blocking(&sentences).unwrap();
    let nearest = |vectors: &[Vec<f32>], i: usize| {
        let others = (0..vectors.len()).filter(|&j| j != i);
        others
            .max_by(|&a, &b| cosine(&vectors[i], &vectors[a]).total_cmp(&cosine(&vectors[i], &vectors[b])))
            .unwrap()
    };
    let same = (0..200).filter(|&i| nearest(&found, i) == nearest(&reference, i)).count();
    assert!(same >= 185, "{same} of 200");
}

#[test]
fn vectors_have_length_one() {
    for vector in EMBEDDER.embed_blocking(&sentences()).unwrap() {
        assert_eq!(vector.len(), DIMENSIONS);
        let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
}

#[test]
fn meaning_shows() {
    let texts = ["How do I get my money back?", "our refund policy", "the cat sleeps on the sofa"];
    let [question, near, far] = EMBEDDER.embed_blocking(&texts).unwrap().try_into().unwrap();
    assert!(cosine(&question, &near) > cosine(&question, &far) + 0.2);
}

#[test]
fn a_batch_keeps_the_order_and_changes_no_vector() {
    // Lengths are mixed on purpose: batches are sorted by length inside.
    let mut texts = sentences();
    texts.reverse();
    texts.swap(3, 150);
    let together = EMBEDDER.embed_blocking(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        let alone = EMBEDDER.embed_blocking(&[text]).unwrap();
        let difference = vector.iter().zip(&alone[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // One activation on the edge between two steps of the quantisation may go either way.
        assert!(difference < 5e-3 && cosine(vector, &alone[0]) > 0.9999, "{difference} {text}");
    }
}

#[test]
fn the_same_text_has_the_same_vector() {
    let texts = ["same text", "other", "same text"];
    let first = EMBEDDER.embed_blocking(&texts).unwrap();
    let second = EMBEDDER.embed_blocking(&texts).unwrap();
    assert_eq!(first, second);
    assert_eq!(first[0], first[2]);
    assert_ne!(first[0], first[1]);
}

#[test]
fn only_the_first_256_tokens_count() {
    // "word" is one token and two are special, so 254 fill the model.
    let (full, one_less) = ("word ".repeat(TOKENS_MAX - 2), "word ".repeat(TOKENS_MAX - 3));
    let texts = [
        full.clone(),
        format!("{full} followed by something else entirely"),
        format!("{one_less} else and more"),
        format!("{one_less} else"),
        "word ".repeat(100_000),
    ];
    let [full, followed, changed_long, changed, huge] =
        EMBEDDER.embed_blocking(&texts).unwrap().try_into().unwrap();
    assert!(cosine(&full, &followed) > 0.999_99);
    assert!(cosine(&full, &huge) > 0.999_99);
    assert!(cosine(&changed_long, &changed) > 0.999_99);
    assert!(cosine(&full, &changed) < 0.999_9, "the last token that fits counts");
}

#[test]
fn before_scaling_a_vector_is_the_mean_of_the_published_model() {
    // Lengths of the means of the published weights, before they are made one.
    for (text, length) in [("hello world", 5.7289), ("What is Deep Learning?", 7.5810)] {
        let mut mean = compute(text, Keep::Beginning).mean;
        let norm = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!((norm - length).abs() < length * 0.02, "{text} {norm}");
        embedder::scale_to_unit(&mut mean);
        assert_eq!(mean, EMBEDDER.embed_blocking(&[text]).unwrap()[0]);
    }
}
