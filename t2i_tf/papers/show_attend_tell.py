"""Show, Attend and Tell: Neural Image Caption Generation with Visual Attention (Xu et al., ICML 2015).

A picture is L annotation vectors, one a place (conv5_4 of VGG-19: 14x14 places, 512 numbers each). An LSTM writes the
caption word by word, and before each word looks at the places anew: "soft" attention mixes the annotations by their
weights, "hard" attention draws one place and learns by REINFORCE. "none" is the baseline that sees the mean annotation
once, in its first state, like Google's NIC.

Where the paper leaves something open this follows the published code: a linear first attention layer, tanh on both
initial states, tanh, dropout and biases in the output layer, one coin in two for sampling, a moving average of the mean
row loss as the baseline. Where the two differ it is the paper's: the doubly stochastic penalty is summed over the
places and averaged over the images (with the weight that the code's form amounts to at batches of 64), the coin is
not shared by a batch, Adam is textbook Adam; the code's ways are settings. Dropout is inverted, as in Keras.

Word ids: 0 is the end of a caption, 1 an unknown word, words count from 2 in order of falling frequency. Nothing
stands before the first word: its input is a zero vector.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.config import option
from t2i_tf.errors import UserError
from t2i_tf.networks import encoders, replicas
from t2i_tf.networks.adam import Adam
from t2i_tf.networks.blocks import leaky_relu
from t2i_tf.networks.composite import Network
from t2i_tf.networks.initial import orthogonal
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.papers import BatchRequest, Context, Selection

END, UNKNOWN = 0, 1
NOTHING = -1
"""In place of the word before the first."""

LONGEST_CAPTION = 99
"""In words; longer ones are not trained on, as published."""

MAX_LENGTH = 200
"""Words that the published captioning program writes at most."""

LEARNING_RATES = {"adam": 2e-4, "adam_published": 2e-4, "rmsprop": 1e-4, "adadelta": 1.0}


@dataclass(frozen=True)
class Hyperparameters:
    attention: str = option(
        "soft",
        "soft: places are mixed; hard: one place is drawn; none: the LSTM starts from their mean and sees no more",
        choices=("soft", "hard", "none"),
    )
    image_encoder: str = option(
        "keras",
        "annotations: conv (small, trained along), conv_random (the same, never trained), or a frozen --backbone: "
        "keras (ImageNet weights), random, a weights file, or the SavedModel folder or TF Hub URL of any network that "
        "gives maps",
    )
    backbone: str = option(
        "vgg19",
        "frozen network: vgg19 (conv5_4: 14x14x512) or inception_v3 (Mixed_6e: 17x17x768)",
        choices=("vgg19", "inception_v3"),
    )
    image_encoder_width: int = option(64, "channels of the first layer of --image_encoder=conv", minimum=1)
    image_size: int = option(
        256,
        "side in pixels of the pictures for the image encoder; a backbone cuts its square out of 256",
        minimum=8,
    )
    vocabulary_limit: int = option(
        10000, "word ids, end and unknown included; the rarest words become the unknown word", minimum=3
    )
    word_dim: int = option(512, "width of the word vectors and of the output layer", minimum=1)
    state_dim: int = option(1800, "width of the LSTM (the published run on COCO; about 1300 on Flickr30k)", minimum=1)
    attention_layers: int = option(2, "layers from an annotation to its part of the score, the first linear", minimum=1)
    initial_layers: int = option(2, "layers from the mean annotation to the first state", minimum=1)
    output_layers: int = option(1, "layers of the output network before the words", minimum=1)
    selector: bool = option(True, "one number a step, from the state, that scales what is seen")
    previous_word_to_output: bool = option(True, "the word before also goes to the output layer")
    context_to_output: bool = option(True, "what is seen also goes to the output layer")
    dropout: float = option(0.5, "share of the first state's, the state's and the output layer's units left out")
    doubly_stochastic_weight: float = option(
        0.32653,
        "weight of the penalty on places that are not looked at once in all. This default is 64 / 196: what the "
        "published 1 amounts to in the form of the published code with batches of 64 and 196 places",
    )
    doubly_stochastic_form: str = option(
        "paper",
        "paper: summed over places, averaged over images; code: summed over images, averaged over places",
        choices=("paper", "code"),
    )
    doubly_stochastic_hard: bool = option(False, "hard attention minimises the penalty too; published, it does not")
    sampling_share: float = option(0.5, "hard: share of the steps at which a place is drawn, not the mixture used")
    coin: str = option(
        "image_and_step",
        "hard: whether a place is drawn is decided anew for each image and step, for each image (paper), or for each "
        "step of the whole batch (what the published code does)",
        choices=("image_and_step", "image", "step"),
    )
    reward_weight: float = option(0.1, "hard: weight of REINFORCE, on mean row losses, summed over the batch")
    entropy_weight: float = option(0.002, "hard: weight of the attention's entropy, summed over steps and batch")
    optimizer: str = option(
        "adam",
        "adam; adam_published (with the bias correction of the published code); rmsprop (Flickr8k); adadelta",
        choices=("adam", "adam_published", "rmsprop", "adadelta"),
    )
    learning_rate: float | None = option(
        None, "learning rate; the published one of the optimizer: 2e-4 adam, 1e-4 rmsprop, 1 adadelta"
    )
    select_by: str = option(
        "bleu",
        "score on unseen pictures by which the best weights are chosen: bleu (BLEU-4 of greedy captions, the paper) or "
        "likelihood (of their captions, the published code); those by the other are kept beside them",
        choices=("bleu", "likelihood"),
    )
    batch_size: int = option(64, "global batch size in captions, all of one length", minimum=1)
    epochs: int = option(20, "passes over all captions (published: until validation gets no better)", minimum=1)
    ema_decay: float = option(0.0, "decay of the moving average of the weights, 0 turns it off")


SELECTIONS = {
    "bleu": Selection("captions", "bleu_4"),
    "likelihood": Selection("captions", "negative_log_likelihood", largest=False),
}


class PublishedInitializer(keras.initializers.Initializer):
    """N(0, 0.01^2), square matrices orthogonal; each of so many column blocks on its own."""

    def __init__(self, blocks: int = 1):
        self.blocks = blocks

    def __call__(self, shape, dtype=None, **kwargs):
        block = (shape[0], shape[1] // self.blocks)

        def rule():
            return orthogonal() if block[0] == block[1] else small()

        return tf.concat([rule()(block, dtype) for _ in range(self.blocks)], axis=1)


def small() -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01)


def dense(units: int, name: str, use_bias: bool = True, initializer=PublishedInitializer) -> keras.layers.Dense:
    return keras.layers.Dense(units, use_bias=use_bias, kernel_initializer=initializer(), name=name)


def drawn_place(attention: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """A place drawn from each distribution, one-hot [B,L].

    Args:
        attention: [B,L]; uniform: [B], from [0, 1); the place is where the cumulative distribution exceeds it.
    """
    places = attention.shape[-1]
    passed = tf.reduce_sum(tf.cast(tf.cumsum(attention, axis=-1) <= uniform[:, None], tf.int32), axis=-1)
    return tf.one_hot(tf.minimum(passed, places - 1), places)  # rounding may leave the sum below 1


class WordVectors(keras.layers.Layer):
    """Word ids int32 [...] -> vectors [..., width]; zero for NOTHING.

    The gradient is dense, as published: all words take part in every update. (Keras keeps that of its `Embedding`
    sparse, with which its RMSprop fails.) Whatever the policy, it is summed in float32.
    """

    def __init__(self, size: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.size, self.width = size, width
        self.vectors = self.add_weight(name="vectors", shape=(size, width), initializer=small(), autocast=False)

    def call(self, words):
        @tf.custom_gradient
        def looked_up(vectors):
            def gradient(upstream):
                flat = tf.reshape(upstream, [-1, self.width])
                return tf.math.unsorted_segment_sum(flat, tf.reshape(words, [-1]), self.size)  # drops NOTHING

            found = tf.gather(vectors, tf.maximum(words, 0))
            return tf.where((words < 0)[..., None], 0.0, found), gradient

        return tf.cast(looked_up(tf.convert_to_tensor(self.vectors)), self.compute_dtype)


def _with_gradients_of(kernels: dict[str, tf.Tensor], met: dict[str, tf.Tensor], sums: tf.Tensor) -> tf.Tensor:
    """Sums [B,T,N], to which a loop over T adds products with the kernels, which it holds fast: the same sums, whose
    gradient passes on to the kernels. One product of all rows does it, where the loop would add up one for each.

    Args:
        kernels: [M,N] by name.
        met: what each kernel is multiplied with, [B,T,M] by the same name; looked at behind the loop, which makes it.
    """

    @tf.custom_gradient
    def passed_on(sums, *kernels):
        def gradients(upstream):
            flat = tf.reshape(upstream, [-1, upstream.shape[-1]])
            rows = (tf.cast(tf.reshape(met[name], [-1, met[name].shape[-1]]), flat.dtype) for name in names)
            return upstream, *(tf.matmul(x, flat, transpose_a=True) for x in rows)

        return tf.identity(sums), gradients

    names = [*kernels]
    return passed_on(sums, *kernels.values())


def _product(x: tf.Tensor, layer: keras.layers.Dense) -> tf.Tensor:
    """[B,M] and a layer without bias -> [B,N]; the kernel is held fast."""
    kernel = tf.stop_gradient(tf.cast(layer.kernel, layer.compute_dtype))
    return tf.matmul(tf.cast(x, kernel.dtype), kernel)


class Decoder(keras.Model):
    """Annotations and the words so far -> the next word.

    call: annotations [B,L,D] and words int32 [B,T] (0 at and behind the end) -> dict:
        logits: [B,T,V] of the word at each row, given those before it;
        states, memories: [B,T,state_dim] of the LSTM; initial_state, initial_memory: before it;
        and with attention attention: [B,T,L]; weights: [B,T,L], what mixed the annotations: the attention, or the place
        that was drawn; selector: [B,T]; contexts: [B,T,D], mixed and scaled by the selector.

    Args (of call):
        caption_mask: float [B,T], 1 on the rows of a caption; on others the state stays. None: all are.
        dropout: what each unit is multiplied with, see `dropout_shapes`; None: nothing is left out.
        draws: hard attention in training: {"uniform": [B,T] for `drawn_place`, "sampled": [B,T], 1 where a place is
            drawn}; None: the attention itself mixes, soft or hard.

    All but the contexts is float32 whatever the policy.
    """

    def __init__(
        self,
        vocabulary_size: int,
        annotation_dim: int,
        word_dim: int = 512,
        state_dim: int = 1800,
        attends: bool = True,
        attention_layers: int = 2,
        initial_layers: int = 2,
        output_layers: int = 1,
        selector: bool = True,
        previous_word_to_output: bool = True,
        context_to_output: bool = True,
        name: str = "decoder",
    ):
        super().__init__(name=name, autocast=False)  # numbers drawn from [0, 1) may not be rounded to 1
        self.vocabulary_size, self.annotation_dim = vocabulary_size, annotation_dim
        self.word_dim, self.state_dim, self.attends = word_dim, state_dim, attends
        self.previous_word_to_output = previous_word_to_output
        self.word_vectors = WordVectors(vocabulary_size, word_dim, name="word_vectors")
        self.initial_hidden = [dense(annotation_dim, f"initial_hidden_{i}") for i in range(1, initial_layers)]
        self.initial_state, self.initial_memory = dense(state_dim, "initial_state"), dense(state_dim, "initial_memory")

        def gates(name, use_bias=False):
            return dense(4 * state_dim, name, use_bias, lambda: PublishedInitializer(4))

        self.gates_of_word, self.gates_of_state = gates("gates_of_word", use_bias=True), gates("gates_of_state")
        if attends:
            self.gates_of_context = dense(4 * state_dim, "gates_of_context", use_bias=False)
            self.annotation_projection = dense(annotation_dim, "annotation_projection", initializer=small)
            self.deeper_projections = [
                dense(annotation_dim, f"annotation_projection_{i}") for i in range(1, attention_layers)
            ]
            self.state_projection = dense(annotation_dim, "state_projection", use_bias=False)
            self.scorer = dense(1, "scorer", use_bias=False)  # the softmax would cancel a bias
        self.selector = dense(1, "selector") if attends and selector else None
        self.output_of_state = dense(word_dim, "output_of_state")
        self.output_of_context = dense(word_dim, "output_of_context") if attends and context_to_output else None
        self.output_hidden = [dense(word_dim, f"output_hidden_{i}") for i in range(1, output_layers)]
        self.output_words = dense(vocabulary_size, "output_words")
        self.baseline = self.add_weight(
            name="baseline", shape=(), initializer="zeros", trainable=False, aggregation="mean"
        )
        """Of REINFORCE; here so that checkpoints keep it, and soft and hard attention have the same weights."""

    def dropout_shapes(self, rows: int | tf.Tensor) -> dict[str, list]:
        """Name -> shape without the batch, of every point where units are left out, for captions of so many rows."""
        initial = {f"initial_{i}": [self.annotation_dim] for i in range(1, len(self.initial_hidden) + 1)}
        output = {f"output_{i}": [rows, self.word_dim] for i in range(len(self.output_hidden) + 1)}
        return {**initial, "state": [rows, self.state_dim], **output}

    def initial_input(self, annotations, dropout=None) -> tf.Tensor:
        """[B,L,D] -> what the first state is made from, [B,D]."""
        x = tf.reduce_mean(annotations, axis=1)
        for i, layer in enumerate(self.initial_hidden, 1):
            x = _dropped(tf.nn.relu(layer(x)), dropout, f"initial_{i}")
        return x

    def first_state(self, annotations, dropout=None) -> tuple[tf.Tensor, tf.Tensor]:
        """[B,L,D] -> LSTM state and memory, [B,state_dim] each."""
        x = self.initial_input(annotations, dropout)
        state, memory = (tf.cast(layer(x), tf.float32) for layer in (self.initial_state, self.initial_memory))
        return tf.tanh(state), tf.tanh(memory)

    def projected(self, annotations) -> tf.Tensor | None:
        """The part of the score that does not depend on the step, [B,L,D]."""
        if not self.attends:
            return None
        x = self.annotation_projection(annotations)
        for layer in self.deeper_projections:
            x = tf.tanh(layer(x))
        return x

    def _kernel(self, layer, width) -> tf.Tensor:
        """[width, 4 state_dim]; the layer is made with the others, since `step` does not call it."""
        if not layer.built:
            layer.build([None, width])
        return tf.cast(layer.kernel, self.compute_dtype)

    def step(self, annotations, projected, word_gates, state, memory, uniform=None, sampled=None) -> dict:
        """The LSTM goes on by a word. Gradients do not reach the kernels of its gates from here, but in `read`.

        Args:
            annotations: [B,L,D]; projected: see there; word_gates: [B, 4 state_dim]; state, memory: [B, state_dim].
            uniform, sampled: [B] each, one step of the `draws`.

        Returns state and memory, and with attention what `call` describes, of one row.
        """
        gates, seen = word_gates + _product(state, self.gates_of_state), {}
        if self.attends:
            score = self.scorer(tf.tanh(projected + self.state_projection(state)[:, None]))
            attention = weights = tf.nn.softmax(tf.cast(score[:, :, 0], tf.float32))
            if uniform is not None:
                share = sampled[:, None]
                weights = share * drawn_place(attention, uniform) + (1.0 - share) * attention
            context = tf.einsum("bl,bld->bd", tf.cast(weights, annotations.dtype), annotations)
            selector = tf.ones_like(context[:, :1]) if self.selector is None else tf.sigmoid(self.selector(state))
            context, selector = context * selector, tf.cast(selector, tf.float32)
            gates += _product(context, self.gates_of_context)
            seen = {"attention": attention, "weights": weights, "selector": selector[:, 0], "contexts": context}
        to_input, to_forget, to_output, candidate = tf.split(tf.cast(gates, tf.float32), 4, axis=-1)
        memory = tf.sigmoid(to_forget) * memory + tf.sigmoid(to_input) * tf.tanh(candidate)
        return {"states": tf.sigmoid(to_output) * tf.tanh(memory), "memories": memory, **seen}

    def output(self, words, states, contexts=None, dropout=None) -> tf.Tensor:
        """Vectors of the words before [..., word_dim], LSTM states and contexts -> logits [..., V]."""
        x = self.output_of_state(_dropped(states, dropout, "state"))
        if self.previous_word_to_output:
            x += words
        if self.output_of_context is not None:
            x += self.output_of_context(contexts)
        x = _dropped(tf.tanh(x), dropout, "output_0")
        for i, layer in enumerate(self.output_hidden, 1):
            x = _dropped(tf.nn.relu(layer(x)), dropout, f"output_{i}")
        return tf.cast(self.output_words(x), tf.float32)

    def read(self, annotations, words, caption_mask=None, dropout=None, draws=None) -> dict:
        """What `call` returns, without the logits; and "words", the vectors [B,T,word_dim] of the words before."""
        annotations = tf.cast(annotations, self.compute_dtype)
        before = tf.concat([tf.fill([tf.shape(words)[0], 1], NOTHING), words[:, :-1]], axis=1)
        vectors, projected = self.word_vectors(before), self.projected(annotations)
        state, memory = self.first_state(annotations, dropout)
        kernels, met = {"states": self._kernel(self.gates_of_state, self.state_dim)}, {}
        if self.attends:
            kernels["contexts"] = self._kernel(self.gates_of_context, self.annotation_dim)
        word_gates = _with_gradients_of(kernels, met, self.gates_of_word(vectors))
        inputs = {"word_gates": word_gates, **(draws or {})}
        kept = tf.ones_like(vectors[:, :, :1], tf.float32) if caption_mask is None else caption_mask[:, :, None]

        def advance(last, row):
            row, keep = row
            made = self.step(annotations, projected, state=last["states"], memory=last["memories"], **row)
            for name in ("states", "memories"):
                made[name] = keep * made[name] + (1.0 - keep) * last[name]
            return made

        first = {"states": state, "memories": memory}
        if self.attends:
            nowhere = tf.zeros_like(annotations[:, :, 0], tf.float32)
            first |= {"attention": nowhere, "weights": nowhere, "contexts": tf.zeros_like(annotations[:, 0])}
            first |= {"selector": tf.zeros_like(annotations[:, 0, 0], tf.float32)}
        rows = tf.scan(advance, tf.nest.map_structure(_swapped, (inputs, kept)), first)
        rows = tf.nest.map_structure(_swapped, rows)
        met |= {**rows, "states": tf.concat([state[:, None], rows["states"][:, :-1]], axis=1)}
        return {**rows, "words": vectors, "initial_state": state, "initial_memory": memory}

    def call(self, annotations, words, caption_mask=None, dropout=None, draws=None, training=False):
        made = self.read(annotations, words, caption_mask, dropout, draws)
        logits = self.output(made.pop("words"), made["states"], made.get("contexts"), dropout)
        return {"logits": logits, **made}


def _dropped(x, dropout, name):
    return x if dropout is None else x * tf.cast(dropout[name], x.dtype)


def _swapped(x):
    """[B,T,...] <-> [T,B,...]"""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


class Hypotheses(NamedTuple):
    """What beam search found, in the order found: finished captions first, then those cut at the longest length."""

    ids: tf.Tensor
    """int32 [B,K,max_length], the end included, -1 behind it."""
    costs: tf.Tensor
    """[B,K]: -log p of the whole caption, its end included; infinite where there is no further hypothesis."""

    @property
    def lengths(self) -> tf.Tensor:
        """int32 [B,K]: ids of each."""
        return tf.reduce_sum(tf.cast(self.ids >= 0, tf.int32), axis=-1)


def beam_search(
    decoder: Decoder, annotations: tf.Tensor, beam_size: int = 1, max_length: int = MAX_LENGTH
) -> Hypotheses:
    """The likeliest captions of annotations [B,L,D]; beam_size 1 is greedy search. Runs inside a graph.

    As published, a finished hypothesis leaves the beam, which becomes smaller by it; the search for a picture ends when
    none is left. Of equal candidates the first hypothesis, then the smaller id wins.
    """
    batch, size = tf.shape(annotations)[0], decoder.vocabulary_size
    annotations = tf.repeat(tf.cast(annotations, decoder.compute_dtype), beam_size, axis=0)
    projected, (state, memory) = decoder.projected(annotations), decoder.first_state(annotations)
    none = tf.fill([batch, beam_size], float("inf"))
    no_ids = tf.fill([batch, beam_size, max_length], -1)
    live = Hypotheses(no_ids, tf.concat([tf.zeros([batch, 1]), none[:, 1:]], axis=1))
    words = tf.fill([batch, beam_size], NOTHING)

    def first_found(*groups: Hypotheses) -> Hypotheses:
        """Of [B,K] of each group those that are there, in order, as many as a beam holds."""
        ids, costs = (tf.concat(parts, axis=1) for parts in zip(*groups, strict=True))
        order = tf.where(tf.math.is_finite(costs), 0, tf.shape(costs)[1]) + tf.range(tf.shape(costs)[1])
        places = tf.argsort(order, axis=1)[:, :beam_size]
        return Hypotheses(tf.gather(ids, places, batch_dims=1), tf.gather(costs, places, batch_dims=1))

    def some_are_live(t, live, *_):
        return tf.reduce_any(tf.math.is_finite(live.costs))

    def advance(t, live, finished, words, state, memory):
        vectors = decoder.word_vectors(tf.reshape(words, [-1]))
        made = decoder.step(annotations, projected, decoder.gates_of_word(vectors), state, memory)
        logits = decoder.output(vectors, made["states"], made.get("contexts"))
        word_costs = tf.reshape(-tf.nn.log_softmax(logits), [batch, beam_size, size])
        candidates = tf.reshape(live.costs[:, :, None] + word_costs, [batch, beam_size * size])
        negative, flat = tf.math.top_k(-candidates, beam_size)
        parents, words, costs = flat // size, flat % size, -negative
        ids = tf.gather(live.ids, parents, batch_dims=1)
        ids = tf.where(tf.range(max_length) == t, words[:, :, None], ids)
        room = tf.reduce_sum(tf.cast(tf.math.is_inf(finished.costs), tf.int32), axis=1, keepdims=True)
        costs = tf.where(tf.range(beam_size) < room, costs, float("inf"))
        finished = first_found(finished, Hypotheses(ids, tf.where(words == END, costs, float("inf"))))
        live = Hypotheses(ids, tf.where(words == END, float("inf"), costs))
        rows = tf.reshape(parents + beam_size * tf.range(batch)[:, None], [-1])
        # As many rows as there were, which a loop wants to be known where it was known before.
        state = tf.ensure_shape(tf.gather(made["states"], rows), state.shape)
        memory = tf.ensure_shape(tf.gather(made["memories"], rows), memory.shape)
        return t + 1, live, finished, words, state, memory

    _, live, finished, *_ = tf.while_loop(
        some_are_live,
        advance,
        (0, live, Hypotheses(no_ids, none), words, state, memory),
        maximum_iterations=max_length,
    )
    return first_found(finished, live)


class Captions(NamedTuple):
    """The chosen caption of each picture; T is the longest one's length."""

    ids: tf.Tensor
    """int32 [B,T]: words, then 0 to the end of the row."""
    lengths: tf.Tensor
    """int32 [B]: ids of each, its end included where it was reached."""
    costs: tf.Tensor
    """[B]: -log p."""
    attention: tf.Tensor | None
    """[B,T,L]: where it looked before each word, places row by row; None without attention."""
    selector: tf.Tensor | None
    """[B,T]: how much of what was seen was let through."""


def to_text(ids, vocabulary: Sequence[str]) -> list[str]:
    """int [B,T] -> captions, words joined by blanks, up to the end. Word i of the vocabulary has the id i + 2."""
    names = ["", "UNK", *vocabulary]
    rows = [list(map(int, row)) for row in ids]
    return [" ".join(names[i] for i in row[: row.index(END) if END in row else None] if i >= 0) for row in rows]


class ConvolutionalAnnotations(Network):
    """Pictures [B,S,S,3] in [-1, 1] -> annotations [B,L,D], 0 and more; for data on which a small network sees enough.

    Convolutions of stride 2 down to at most 8x8 places, each of twice the channels up to 4 * width = D.
    """

    def __init__(self, width: int, image_size: int, name: str = "image_encoder"):
        super().__init__(name=name)
        self.convs, self.norms = [], []
        size, filters = image_size, width
        while size > 8 or not self.convs:
            index, size = len(self.convs), -(-size // 2)
            conv = keras.layers.Conv2D(
                filters, 4, 2, "same", use_bias=False, kernel_initializer="he_normal", name=f"conv{index}"
            )
            self.convs.append(conv)
            self.norms.append(BatchNormalization(name=f"norm{index}"))
            filters = min(2 * filters, 4 * width)

    def call(self, images, training=False):
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = leaky_relu(norm(conv(x), training=training and self.trainable))
        _, height, width, channels = x.shape
        return tf.nn.relu(tf.reshape(x, [-1, height * width, channels]))


class PublishedAdamRate(keras.optimizers.schedules.LearningRateSchedule):
    """Adam's rate times what the published code's bias correction, of 0.1^t and 0.001^t, is more than the right one."""

    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, step):
        t = tf.cast(step + 1, tf.float32)

        def correction(beta_1, beta_2):
            return tf.sqrt(1.0 - tf.pow(beta_2, t)) / (1.0 - tf.pow(beta_1, t))

        return self.rate * correction(0.1, 0.001) / correction(0.9, 0.999)

    def get_config(self):
        return {"rate": self.rate}


def make_optimizer(name: str, rate: float | None) -> keras.Optimizer:
    """The published update rules. RMSProp is Graves': with momentum, and the mean gradient's square taken off."""
    rate = LEARNING_RATES[name] if rate is None else rate
    if name == "rmsprop":
        return keras.optimizers.RMSprop(rate, rho=0.95, momentum=0.9, epsilon=1e-4, centered=True, name=name)
    if name == "adadelta":
        return keras.optimizers.Adadelta(rate, rho=0.95, epsilon=1e-6, name=name)
    return Adam(PublishedAdamRate(rate) if name == "adam_published" else rate, epsilon=1e-8, name=name)


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for.

    Pictures are batch["annotations"] float [B,L,D] of the frozen network, or batch["images"]. Captions are
    batch["words"] int32 [B,1,T], ids as above and 0 behind the words, with batch["word_lengths"] int32 [B,1], their
    number of words; the row of the end is added here.
    """

    kind = "supervised"
    score_metrics = ("captions",)

    def __init__(self, hyperparameters: Hyperparameters, context: Context):
        hp = self.hyperparameters = hyperparameters
        if not 0.0 <= hp.dropout < 1.0:
            raise UserError(f"--dropout={hp.dropout}: give a share from 0 to below 1")
        if not 0.0 <= hp.sampling_share <= 1.0:
            raise UserError(f"--sampling_share={hp.sampling_share}: give a share from 0 to 1")
        if context.vocabulary_size <= 1:
            raise UserError("show_attend_tell needs captions: prepare a data set that has some")
        self.vocabulary_size = min(context.vocabulary_size + 1, hp.vocabulary_limit)  # the unknown word is one more
        self.num_captions = context.num_captions
        self.image_encoder = None
        if hp.image_encoder in ("conv", "conv_random"):
            self.image_encoder = ConvolutionalAnnotations(hp.image_encoder_width, hp.image_size)
            picture = tf.zeros([1, hp.image_size, hp.image_size, 3])
            _, *self.annotation_shape = self.image_encoder(picture).shape
            self.image_encoder.trainable = hp.image_encoder == "conv"
        elif hp.image_encoder == "keras":  # weights to be fetched when they are first needed
            self.annotation_shape = encoders.BACKBONES[hp.backbone].shape
        else:
            self.annotation_shape = self.frozen_features.shape
        self.decoder = Decoder(
            self.vocabulary_size,
            self.annotation_shape[1],
            hp.word_dim,
            hp.state_dim,
            hp.attention != "none",
            hp.attention_layers,
            hp.initial_layers,
            hp.output_layers,
            hp.selector,
            hp.previous_word_to_output,
            hp.context_to_output,
        )
        self.decoder(tf.zeros([1, *self.annotation_shape]), tf.zeros([1, 1], tf.int32))
        self.networks = {"decoder": self.decoder}
        if self.image_encoder is not None:
            self.networks["image_encoder"] = self.image_encoder
        self.request = BatchRequest(
            image_sizes=(hp.image_size,),
            sampling="caption_length",
            text="words",
            unknown_words=True,
            longest_caption=LONGEST_CAPTION,
            annotations=self.image_encoder is None,
            augmentation=False,
        )

    @functools.cached_property
    def frozen_features(self) -> encoders.AnnotationFeatures | None:
        """The frozen network in front, None for --image_encoder=conv. Raises UserError when it cannot be had."""
        if self.image_encoder is not None:
            return None
        try:
            with tf.init_scope():
                return encoders.AnnotationFeatures(self.hyperparameters.backbone, self.hyperparameters.image_encoder)
        except ValueError as error:
            raise UserError(f"--image_encoder={error}") from error

    @property
    def seen_share(self) -> float:
        """Side of the square in the middle of a picture that the annotations cover, of the picture's side."""
        return 1.0 if self.frozen_features is None else self.frozen_features.seen_share

    @property
    def selection(self) -> Selection:
        return SELECTIONS[self.hyperparameters.select_by]

    @property
    def further_selections(self) -> dict[str, Selection]:
        return {f"best_{name}": by for name, by in SELECTIONS.items() if by != self.selection}

    def steps_per_epoch(self, num_images: int) -> int:
        """Every caption once, if all batches were full; the last one of each length is filled up with others of it."""
        return max(1, -(-(self.num_captions or num_images) // self.hyperparameters.batch_size))

    @property
    def whole_batch(self) -> str | None:
        hp = self.hyperparameters
        summed = self.decoder.attends and (hp.attention == "hard" or hp.doubly_stochastic_form == "code")
        return f"the loss of --attention={hp.attention} has a term that is a sum over the batch" if summed else None

    def optimizers(self, steps_per_epoch: int) -> dict:
        return {"captioner": make_optimizer(self.hyperparameters.optimizer, self.hyperparameters.learning_rate)}

    def noise(self, draw) -> dict:
        """dropout and draws: see `Decoder`, for captions of the batch's length."""
        rows = draw.words + 1
        return {"draws": self._draws(draw.uniform, rows), "dropout": self._dropout(draw.uniform, rows)}

    def annotations(self, batch, training: bool = False) -> tf.Tensor:
        """float32 [B,L,D] of batch["annotations"], or of batch["images"]: [B,S,S,3], float in [-1, 1] or uint8."""
        if "annotations" in batch:
            return tf.cast(batch["annotations"], tf.float32)
        pictures = batch["images"][-1] if isinstance(batch["images"], tuple) else batch["images"]
        if pictures.dtype == tf.uint8:
            pictures = tf.cast(pictures, tf.float32) / 127.5 - 1.0
        if self.image_encoder is not None:
            return tf.cast(self.image_encoder(pictures, training=training), tf.float32)
        return self.frozen_features((pictures + 1.0) * 127.5)

    def rows(self, batch) -> tuple[tf.Tensor, tf.Tensor]:
        """The captions with the row of their end -> words int32 [B,T+1] and mask float32 [B,T+1]."""
        words = tf.pad(batch["words"][:, 0], [[0, 0], [0, 1]])
        rows = tf.range(tf.shape(words)[1])
        lengths = batch["word_lengths"][:, :1]
        words = tf.where(words < self.vocabulary_size, words, UNKNOWN)
        return tf.where(rows < lengths, words, END), tf.cast(rows <= lengths, tf.float32)

    def _dropout(self, uniform, rows):
        rate = self.hyperparameters.dropout
        if not rate:
            return None
        kept = {}
        for name, shape in self.decoder.dropout_shapes(rows).items():
            drawn = uniform(f"dropout_{name}", math.prod(shape))
            kept[name] = tf.cast(tf.reshape(drawn, [-1, *shape]) >= rate, tf.float32) / (1.0 - rate)
        return kept

    def _draws(self, uniform, rows):
        hp = self.hyperparameters
        if hp.attention != "hard":
            return None
        places = uniform("place", rows)
        coins = uniform("coin", 1 if hp.coin == "image" else rows)
        if hp.coin == "step":
            coins = replicas.gather(coins)[:1]
        sampled = tf.cast(coins < hp.sampling_share, tf.float32)
        return {"uniform": places, "sampled": tf.broadcast_to(sampled, tf.shape(places))}

    def losses(self, batch, noise) -> dict:
        """-log p of a caption, mean over the rows of the batch, and what attention is trained with beside it."""
        hp = self.hyperparameters
        words, mask = self.rows(batch)
        made = self.decoder(self.annotations(batch, training=True), words, mask, training=True, **noise)
        row_losses = losses.caption_negative_log_likelihood(made["logits"], words, mask)
        likelihood = tf.reduce_mean(tf.reduce_sum(row_losses, axis=1))
        logs = {"negative_log_likelihood": likelihood, "per_word": tf.reduce_sum(row_losses) / tf.reduce_sum(mask)}
        if not self.decoder.attends:
            return {"loss": likelihood, **logs}
        loss = likelihood
        penalty = losses.doubly_stochastic_penalty(made["attention"] * mask[:, :, None], hp.doubly_stochastic_form)
        if hp.doubly_stochastic_form == "code":
            penalty *= replicas.count()  # a sum over the global batch
        if hp.attention == "soft" or hp.doubly_stochastic_hard:
            loss += hp.doubly_stochastic_weight * penalty
        if hp.attention == "hard":
            baseline = tf.convert_to_tensor(self.decoder.baseline)
            loss += replicas.count() * losses.sampled_attention_loss(
                made["attention"], made["weights"], row_losses, mask, baseline, hp.reward_weight, hp.entropy_weight
            )
            new = losses.moving_baseline(baseline, tf.stop_gradient(row_losses), mask)
            self.decoder.baseline.assign(replicas.mean(new))
            logs["baseline"] = baseline
        return {"loss": loss, **logs, "doubly_stochastic": penalty}

    def negative_log_likelihood(self, batch) -> tf.Tensor:
        """-log p of each caption [B], without dropout or draws: what the published code selects its model by."""
        words, mask = self.rows(batch)
        logits = self.decoder(self.annotations(batch), words, caption_mask=mask)["logits"]
        return tf.reduce_sum(losses.caption_negative_log_likelihood(logits, words, mask), axis=1)

    def caption(
        self, batch, beam_size: int = 1, length_normalised: bool = False, max_length: int = MAX_LENGTH
    ) -> Captions:
        """Captions of batch["annotations"] or batch["images"], see `annotations`. Runs inside a graph.

        Hard attention too mixes the places by their weights here, as published.

        Args:
            length_normalised: choose the caption of the least cost a word, its end counted, not of the least cost.
        """
        annotations = self.annotations(batch)
        found = beam_search(self.decoder, annotations, beam_size, max_length)
        lengths = found.lengths
        costs = found.costs / tf.cast(tf.maximum(lengths, 1), tf.float32) if length_normalised else found.costs
        best = tf.argmin(costs, axis=1, output_type=tf.int32)[:, None]
        ids, lengths, costs = (tf.gather(x, best, batch_dims=1)[:, 0] for x in (found.ids, lengths, found.costs))
        ids = tf.maximum(ids[:, : tf.reduce_max(lengths)], END)
        seen = self.decoder.read(annotations, ids) if self.decoder.attends else {}
        return Captions(ids, lengths, costs, seen.get("attention"), seen.get("selector"))
