"""Sound: nets over spectrograms, nets over samples, and the front ends between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from zoo.architecture import Made, image
from zoo.families.blocks import Attention, ConvNorm, head

__all__ = ["ARCHITECTURES"]


def keyword_spotter() -> nn.Module:
    """Zhang et al., 2017: depthwise separable convolutions over a spectrogram."""
    pairs = [nn.Sequential(ConvNorm(16, 16, 3, groups=16), ConvNorm(16, 16, 1)) for _ in range(2)]
    return nn.Sequential(nn.Conv2d(1, 16, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(16), nn.ReLU(), *pairs, head(16, 12))


class _AudioCNN(nn.Module):
    """Max over one axis plus mean over it, as in audio taggers (Kong et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(32)
        self.layers = nn.Sequential(ConvNorm(1, 8), nn.AvgPool2d(2), ConvNorm(8, 16), nn.AvgPool2d(2))
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.transpose(1, 3)).transpose(1, 3)
        x = self.layers(x).mean(3)
        return torch.sigmoid(self.head(x.amax(2) + x.mean(2)))


class _Spectrogram(nn.Module):
    """Short-time Fourier transform, mel bands, logarithm, net."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.register_buffer("bands", torch.rand(16, 33))
        self.layers = nn.Sequential(ConvNorm(1, 8, 3, 2), ConvNorm(8, 16, 3, 2), head(16, 4))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        found = torch.stft(samples, 64, hop_length=32, window=self.window, center=True, return_complex=True)
        power = found.real**2 + found.imag**2
        mel = torch.log(self.bands @ power + 1e-5)
        return self.layers(mel.unsqueeze(1))


class _FourierFrames(nn.Module):
    """Frames by ``unfold``, ``rfft``, and its absolute value."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))
        self.head = nn.Sequential(nn.Linear(17, 24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        frames = samples.unfold(-1, 32, 16) * self.window
        return self.head(torch.fft.rfft(frames).abs()).mean(1)


class _Conformer(nn.Module):
    """Half-step feed-forward, attention, convolution, feed-forward (Gulati et al., 2020)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.enter = nn.Linear(16, width)
        self.first = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 48), nn.SiLU(), nn.Linear(48, width))
        self.second = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 48), nn.SiLU(), nn.Linear(48, width))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 4)
        self.wide, self.narrow = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 1)
        self.depthwise, self.norm = nn.Conv1d(width, width, 7, padding=3, groups=width), nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        x = x + 0.5 * self.first(x)
        x = x + self.attention(self.norm1(x))
        y = functional.glu(self.wide(self.norm2(x).transpose(1, 2)), dim=1)
        x = x + self.narrow(functional.silu(self.norm(self.depthwise(y)))).transpose(1, 2)
        x = self.norm3(x + 0.5 * self.second(x))
        return self.head(x).log_softmax(-1)


class _Hidden(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: torch.Tensor) -> Any:
        return self.model(values).last_hidden_state


def wav2vec2() -> nn.Module:
    """Baevski et al., 2020."""
    import transformers

    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, conv_dim=(16, 16, 16),
        conv_stride=(5, 4, 4), conv_kernel=(10, 4, 4), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        num_feat_extract_layers=3, apply_spec_augment=False,
    )  # fmt: skip
    return _Hidden(transformers.Wav2Vec2Model(config))


def whisper_encoder() -> nn.Module:
    """Radford et al., 2023."""
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(
        num_mel_bins=16, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48, max_source_positions=20,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=48, vocab_size=64, pad_token_id=0,
    )  # fmt: skip
    return _Hidden(WhisperEncoder(config))


class _Gated(nn.Module):
    """WaveNet's gated dilated convolutions with skips (van den Oord et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 12, 1)
        self.filters = nn.ModuleList(nn.Conv1d(12, 24, 2, dilation=2**i) for i in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(12, 16, 1) for _ in range(4))
        self.leave = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 32, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, total = self.enter(x), torch.zeros(1)
        for index, (conv, skip) in enumerate(zip(self.filters, self.skips, strict=True)):
            left, right = conv(functional.pad(x, (2**index, 0))).chunk(2, 1)
            y = torch.tanh(left) * torch.sigmoid(right)
            total, x = total + skip(y), x + y
        return self.leave(total)


class _XVector(nn.Module):
    """Statistics over time (mean and deviation) of dilated convolutions (Snyder et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv1d(16, 24, 5), nn.BatchNorm1d(24), nn.LeakyReLU(0.2), nn.Conv1d(24, 24, 3, dilation=2), nn.PReLU()]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(48, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(x)
        return functional.normalize(self.head(torch.cat([x.mean(-1), x.std(-1)], 1)), dim=-1)


class _Vocoder(nn.Module):
    """Transposed 1-D convolutions that lengthen a signal (Kong et al., 2020, HiFi-GAN)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv1d(8, 16, 7, padding=3), nn.Conv1d(8, 1, 7, padding=3)
        self.up1, self.up2 = nn.ConvTranspose1d(16, 12, 8, 4, 2), nn.ConvTranspose1d(12, 8, 4, 2, 1)
        self.inner = nn.Conv1d(8, 8, 3, padding=3, dilation=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up2(functional.leaky_relu(self.up1(functional.leaky_relu(self.enter(x), 0.1)), 0.1))
        return torch.tanh(self.leave(x + self.inner(functional.leaky_relu(x, 0.1))))


ARCHITECTURES: tuple[Made, ...] = (
    ("keyword-spotter", keyword_spotter, image(1, 49, 10)),
    ("audio-cnn", _AudioCNN, image(1, 24, 32)),
    ("stft-mel-cnn", _Spectrogram, image(512)),
    ("rfft-frames", _FourierFrames, image(256)),
    ("conformer", _Conformer, image(20, 16)),
    ("wav2vec2", wav2vec2, image(1600)),
    ("whisper-encoder", whisper_encoder, image(16, 40)),
    ("wavenet", _Gated, image(1, 64)),
    ("x-vector", _XVector, image(16, 40)),
    ("vocoder", _Vocoder, image(8, 12)),
)
