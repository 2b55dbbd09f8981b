// A training step of the network on a CPU, LANES images side by side in a vector.
//
// A block of images is a tensor [channel][y][x][lane]. Every operation is then the same for all
// lanes: nothing is shuffled between them, and no number of channels is too odd. Convolutions keep
// a tile of sums in registers, channels by pixels, so that all but one in three instructions is
// a multiply-add.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define FULL 1
#elif defined(__AVX2__)
#define LANES 8
#define FULL 2
#else
#define LANES 4
#define FULL 1
#endif

#define INLINE static inline __attribute__((always_inline))
#define SIDE 28
#define BORDERED (SIDE + 2)
#define CLASSES 10

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
// Sums over images need no lane each: a quarter of the lanes is a quarter of the memory.
typedef float part __attribute__((vector_size(LANES)));

enum { BATCH, GROUP, ELEMENT };

// All members of the two structures have eight bytes: to Python they are rows of numbers.

// One convolution with its ReLU, normalization and, after it or not, 2×2 max pool. Buffers hold a
// block of images, or where it says so one after the other.
typedef struct {
  int64_t in, out, kernel, pad, side, pool;  // side: of its output
  int64_t norm, groups, stride;
  const float *weight, *scale, *shift;
  float *weight_gradient, *scale_gradient, *shift_gradient;
  float *running_mean, *running_variance;
  vec *input;     // (in, side + kernel - 1, …), with the border of zeros that `pad` asks for
  vec *active;    // blocks of (out, side, side) after ReLU
  vec *normal;    // (out, side, side) after normalization, if no next layer's input is that
  vec *dnormal;   // blocks, `stride` apart, of (out, side, side): gradient of that, of all layers
  vec *gradient;  // (out, side, side) gradient of the convolution's output, in a border of zeros
  vec *mean, *inverse;    // blocks of (out)
  vec *sums, *products;   // (out): gradients of the shift, and of the scale, times the scale
  vec *weight_sums;               // gradients of all images
  part *scale_sums, *shift_sums;  // likewise
  float *packed, *turned;  // weights in the order of `conv` and of its gradient
} Layer;

typedef struct {
  Layer *layer;
  const float *weight, *bias;  // of the linear layer: (10, out), (10)
  float *weight_gradient, *bias_gradient;
  vec *weight_sums, *bias_sums;
  const float *shades;  // what each of the 256 pixel values is to the network
  int64_t layers;
} Network;

INLINE vec zero(void) { return (vec){0}; }
// Not 0 + value, which is another number where value is -0: the compiler would have to add.
INLINE vec all(float value) { return value - (vec){0}; }
INLINE vec choose(ivec where, vec a, vec b) {
  return (vec)(((ivec)a & where) | ((ivec)b & ~where));
}
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }
INLINE float total(vec v) {
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}
INLINE part fold(vec v) {
  part quarter[4];
  memcpy(quarter, &v, sizeof v);
  return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}
INLINE float total_part(part v) {
  float sum = 0;
  for (int i = 0; i < LANES / 4; i++) sum += v[i];
  return sum;
}

// ---- convolution -------------------------------------------------------------------------------

// y[c][p] = Σ w·x for `CO` channels of `PX` neighbouring pixels, all in registers.
INLINE void conv_tile(const int CO, const int PX, const int K, int in, const vec *x, int xrow,
                      int xplane, const float *w, vec *y, int yplane, const int relu) {
  vec sum[CO][PX];
#pragma GCC unroll 16
  for (int c = 0; c < CO; c++)
#pragma GCC unroll 16
    for (int p = 0; p < PX; p++) sum[c][p] = zero();
  for (int i = 0; i < in; i++)
    for (int ky = 0; ky < K; ky++) {
      const vec *row = x + i * xplane + ky * xrow;
#pragma GCC unroll 3
      for (int kx = 0; kx < K; kx++) {
#pragma GCC unroll 16
        for (int c = 0; c < CO; c++) {
          vec weight = all(w[c]);
#pragma GCC unroll 16
          for (int p = 0; p < PX; p++) sum[c][p] += weight * row[p + kx];
        }
        w += CO;
      }
    }
#pragma GCC unroll 16
  for (int c = 0; c < CO; c++)
#pragma GCC unroll 16
    for (int p = 0; p < PX; p++) {
      vec v = sum[c][p];
      y[c * yplane + p] = relu ? larger(v, zero()) : v;
    }
}

INLINE void conv_with(const int CO, const int PX, const int K, const vec *x, int in, int xside,
                      const float *packed, vec *y, int out, int side, const int relu) {
  const int xplane = xside * xside, yplane = side * side;
  for (int c = 0; c < out; c += CO) {
    const float *w = packed + c * in * K * K;
    for (int row = 0; row < side; row++)
      for (int column = 0; column < side; column += PX)
        conv_tile(CO, PX, K, in, x + row * xside + column, xside, xplane, w,
                  y + c * yplane + row * side + column, yplane, relu);
  }
}

// The width of the tiles: channels at a time.
static int tile_channels(int out) {
  return (out == 16 ? 8 : out) / FULL;
}

static void conv(const vec *x, int in, int xside, const float *packed, int kernel, vec *y, int out,
                 int side, int relu) {
#define CASE(O, CO, PX, K)                                                          \
  if (out == O && kernel == K) {                                                     \
    if (relu)                                                                        \
      conv_with(CO / FULL, PX, K, x, in, xside, packed, y, out, side, 1);            \
    else                                                                             \
      conv_with(CO / FULL, PX, K, x, in, xside, packed, y, out, side, 0);            \
    return;                                                                          \
  }
  CASE(12, 12, 2, 3)
  CASE(16, 8, 3, 3)
  CASE(14, 14, 2, 3)
  CASE(6, 6, 4, 3)
  CASE(6, 6, 4, 1)
  CASE(16, 8, 3, 1)
  abort();
}

// Weights (out, in, k, k) in the order conv_tile reads them.
static void pack(const Layer *l) {
  float *packed = l->packed;
  const int kk = l->kernel * l->kernel, step = tile_channels(l->out);
  for (int c = 0; c < l->out; c += step)
    for (int i = 0; i < l->in; i++)
      for (int k = 0; k < kk; k++)
        for (int o = 0; o < step; o++) *packed++ = l->weight[((c + o) * l->in + i) * kk + k];
}

// The same for the gradient of the input: channels exchanged, kernel turned.
static void pack_turned(const Layer *l) {
  float *packed = l->turned;
  const int kk = l->kernel * l->kernel, step = tile_channels(l->in);
  for (int i = 0; i < l->in; i += step)
    for (int o = 0; o < l->out; o++)
      for (int k = 0; k < kk; k++)
        for (int n = 0; n < step; n++)
          *packed++ = l->weight[(o * l->in + i + n) * kk + (kk - 1 - k)];
}

// sums[c][k] += Σ over some rows of gradient·input.
INLINE void weights_tile(const int CO, const int K, const vec *x, int xrow, const vec *g, int grow,
                         int gplane, int rows, int columns, vec *sums, int sumplane) {
  vec sum[CO][K];
#pragma GCC unroll 16
  for (int c = 0; c < CO; c++)
#pragma GCC unroll 3
    for (int k = 0; k < K; k++) sum[c][k] = sums[c * sumplane + k];
  for (int r = 0; r < rows; r++)
    for (int p = 0; p < columns; p++) {
#pragma GCC unroll 16
      for (int c = 0; c < CO; c++) {
        vec gradient = g[c * gplane + r * grow + p];
#pragma GCC unroll 3
        for (int k = 0; k < K; k++) sum[c][k] += gradient * x[r * xrow + p + k];
      }
    }
#pragma GCC unroll 16
  for (int c = 0; c < CO; c++)
#pragma GCC unroll 3
    for (int k = 0; k < K; k++) sums[c * sumplane + k] = sum[c][k];
}

INLINE void weights_with(const int CO, const int K, const Layer *l, const vec *x, const vec *g) {
  const int xside = l->side + K - 1, side = l->side;
  const int border = K - 1 - l->pad, gside = side + 2 * border, gplane = gside * gside;
  g += border * gside + border;
  const int rows = side >= 24 ? 1 : side == 10 ? 2 : side == 8 ? 4 : 6;
  for (int row = 0; row < side; row += rows) {
    int n = side - row < rows ? side - row : rows;
    for (int c = 0; c < l->out; c += CO)
      for (int i = 0; i < l->in; i++)
        for (int ky = 0; ky < K; ky++)
          weights_tile(CO, K, x + i * xside * xside + (row + ky) * xside, xside,
                       g + c * gplane + row * gside, gside, gplane, n, side,
                       l->weight_sums + ((c * l->in + i) * K + ky) * K, l->in * K * K);
  }
}

static void weight_gradient(const Layer *l, const vec *x, const vec *g) {
#define WCASE(O, CO, K) \
  if (l->out == O && l->kernel == K) { weights_with(CO / FULL, K, l, x, g); return; }
  WCASE(12, 6, 3)
  WCASE(16, 8, 3)
  WCASE(14, 7, 3)
  WCASE(6, 6, 1)
  abort();
}

// ---- normalization -----------------------------------------------------------------------------

static const float EPSILON = 1e-5f, RUNNING = 0.1f;

INLINE int plane_of(const Layer *l) { return l->side * l->side; }

// One layer's takes the place of the next one's, while that is in the cache.
INLINE vec *dnormal(const Layer *l, int block) { return l->dnormal + block * l->stride; }

INLINE vec mask(int lanes) {
  vec m = zero();
  for (int i = 0; i < lanes; i++) m[i] = 1;
  return m;
}

INLINE vec inverse_root(vec v) {
  for (int i = 0; i < LANES; i++) v[i] = 1 / sqrtf(v[i]);
  return v;
}

// Mean and, for now in the place of `inverse`, sum of squared deviations of a block's channels.
static void moments(const Layer *l, int block) {
  const int n = plane_of(l);
  const vec *active = l->active + block * l->out * n;
  vec *mean = l->mean + block * l->out, *m2 = l->inverse + block * l->out;
  for (int c = 0; c < l->out; c++) {
    const vec *a = active + c * n;
    vec s0 = zero(), s1 = zero();
    for (int i = 0; i < n; i += 2) s0 += a[i], s1 += a[i + 1];
    vec m = (s0 + s1) / (float)n;
    s0 = s1 = zero();
    for (int i = 0; i < n; i += 2) {
      vec d0 = a[i] - m, d1 = a[i + 1] - m;
      s0 += d0 * d0, s1 += d1 * d1;
    }
    mean[c] = m, m2[c] = s0 + s1;
  }
}

static void group_statistics(const Layer *l) {
  vec *mean = l->mean, *inverse = l->inverse;
  const int n = plane_of(l), size = l->out / l->groups;
  for (int g = 0; g < l->out; g += size) {
    vec m = zero(), m2 = zero();
    for (int c = g; c < g + size; c++) m += mean[c];
    m /= (float)size;
    for (int c = g; c < g + size; c++) {
      vec d = mean[c] - m;
      m2 += inverse[c] + d * d * (float)n;
    }
    vec root = inverse_root(m2 / (float)(n * size) + EPSILON);
    for (int c = g; c < g + size; c++) mean[c] = m, inverse[c] = root;
  }
}

static void batch_statistics(const Layer *l, int count) {
  const int n = plane_of(l), blocks = (count + LANES - 1) / LANES;
  for (int c = 0; c < l->out; c++) {
    double mean = 0, m2 = 0;
    for (int i = 0; i < count; i++) mean += l->mean[i / LANES * l->out + c][i % LANES];
    mean /= count;
    for (int i = 0; i < count; i++) {
      double d = l->mean[i / LANES * l->out + c][i % LANES] - mean;
      m2 += l->inverse[i / LANES * l->out + c][i % LANES] + d * d * n;
    }
    double size = (double)n * count, variance = m2 / size;
    for (int b = 0; b < blocks; b++) {
      l->mean[b * l->out + c] = all((float)mean);
      l->inverse[b * l->out + c] = all((float)(1 / sqrt(variance + EPSILON)));
    }
    l->running_mean[c] += RUNNING * ((float)mean - l->running_mean[c]);
    l->running_variance[c] += RUNNING * ((float)(m2 / (size - 1)) - l->running_variance[c]);
  }
}

static void running_statistics(const Layer *l) {
  for (int c = 0; c < l->out; c++) {
    l->mean[c] = all(l->running_mean[c]);
    l->inverse[c] = all(1 / sqrtf(l->running_variance[c] + EPSILON));
  }
}

// Writes planes into the interior of others with `border` zeros around.
static void normalize(const Layer *l, int block, vec *to, int border) {
  const int side = l->side, n = plane_of(l), tside = side + 2 * border;
  const vec *a = l->active + block * l->out * n;
  for (int c = 0; c < l->out; c++) {
    const vec mean = l->mean[block * l->out + c], inverse = l->inverse[block * l->out + c];
    for (int y = 0; y < side; y++) {
      vec *row = to + (c * tside + y + border) * tside + border;
      const vec *from = a + c * n + y * side;
      if (l->norm == ELEMENT) {
        const float *scale = l->scale + c * n + y * side, *shift = l->shift + c * n + y * side;
        for (int x = 0; x < side; x++)
          row[x] = (from[x] - mean) * inverse * scale[x] + shift[x];
      } else {
        const vec scale = inverse * l->scale[c], shift = l->shift[c] - mean * scale;
        for (int x = 0; x < side; x++) row[x] = from[x] * scale + shift;
      }
    }
  }
}

// Sums of the gradient and of gradient·normalized over a block's channel planes.
static void gradient_sums(const Layer *l, int block) {
  const int n = plane_of(l);
  for (int c = 0; c < l->out; c++) {
    const vec *a = l->active + (block * l->out + c) * n, *d = dnormal(l, block) + c * n;
    const vec mean = l->mean[block * l->out + c], inverse = l->inverse[block * l->out + c];
    vec sum = zero(), product = zero();
    if (l->norm == ELEMENT) {
      part *scale_sums = l->scale_sums + c * n, *shift_sums = l->shift_sums + c * n;
      const float *scale = l->scale + c * n;
      for (int i = 0; i < n; i++) {
        vec p = d[i] * ((a[i] - mean) * inverse);
        shift_sums[i] += fold(d[i]), scale_sums[i] += fold(p);
        sum += d[i] * scale[i], product += p * scale[i];
      }
      l->sums[c] = sum, l->products[c] = product;
    } else {
      for (int i = 0; i < n; i++) sum += d[i], product += d[i] * (a[i] - mean);
      product *= inverse;
      l->shift_sums[c] += fold(sum), l->scale_sums[c] += fold(product);
      l->sums[c] = sum * l->scale[c], l->products[c] = product * l->scale[c];
    }
  }
}

// gradient = inverse·(scale·d − sum − normalized·product) where the unit is active.
static void normal_backward(const Layer *l, int block, vec lanes) {
  const int side = l->side, n = plane_of(l), border = l->kernel - 1 - l->pad;
  const int gside = side + 2 * border;
  for (int c = 0; c < l->out; c++) {
    const vec *a = l->active + (block * l->out + c) * n, *d = dnormal(l, block) + c * n;
    const vec mean = l->mean[block * l->out + c], inverse = l->inverse[block * l->out + c] * lanes;
    const vec m1 = l->sums[c], m2 = l->products[c] * l->inverse[block * l->out + c];
    for (int y = 0; y < side; y++) {
      vec *g = l->gradient + (c * gside + y + border) * gside + border;
      const vec *ar = a + y * side, *dr = d + y * side;
      if (l->norm == ELEMENT) {
        const float *scale = l->scale + c * n + y * side;
        for (int x = 0; x < side; x++) {
          vec v = inverse * (dr[x] * scale[x] - m1 - (ar[x] - mean) * m2);
          g[x] = choose(ar[x] > zero(), v, zero());
        }
      } else {
        const vec scale = all(l->scale[c]);
        for (int x = 0; x < side; x++) {
          vec v = inverse * (dr[x] * scale - m1 - (ar[x] - mean) * m2);
          g[x] = choose(ar[x] > zero(), v, zero());
        }
      }
    }
  }
}

// Turn the channels' sums into the means that their groups take off.
static void group_means(const Layer *l) {
  const int size = l->out / l->groups;
  const float count = (float)(size * plane_of(l));
  for (int g = 0; g < l->out; g += size) {
    vec sum = zero(), product = zero();
    for (int c = g; c < g + size; c++) sum += l->sums[c], product += l->products[c];
    for (int c = g; c < g + size; c++) l->sums[c] = sum / count, l->products[c] = product / count;
  }
}

// The same where the batch is the group.
static void batch_means(const Layer *l, int images) {
  const float count = (float)plane_of(l) * (float)images;
  for (int c = 0; c < l->out; c++) {
    l->sums[c] = all(total_part(l->shift_sums[c]) * l->scale[c] / count);
    l->products[c] = all(total_part(l->scale_sums[c]) * l->scale[c] / count);
  }
}

// ---- pool --------------------------------------------------------------------------------------

static void pool(const Layer *l, const vec *from, vec *to) {
  const int side = l->side, half = side / 2;
  for (int c = 0; c < l->out; c++)
    for (int y = 0; y < half; y++)
      for (int x = 0; x < half; x++) {
        const vec *f = from + (c * side + 2 * y) * side + 2 * x;
        to[(c * half + y) * half + x] = larger(larger(f[0], f[1]), larger(f[side], f[side + 1]));
      }
}

// The first of the largest gets all, as in PyTorch.
static void pool_backward(const Layer *l, const vec *from, const vec *d, vec *to) {
  const int side = l->side, half = side / 2;
  for (int c = 0; c < l->out; c++)
    for (int y = 0; y < half; y++)
      for (int x = 0; x < half; x++) {
        const vec *f = from + (c * side + 2 * y) * side + 2 * x;
        vec *t = to + (c * side + 2 * y) * side + 2 * x;
        const vec g = d[(c * half + y) * half + x];
        const vec f0 = f[0], f1 = f[1], f2 = f[side], f3 = f[side + 1];
        const vec best = larger(larger(f0, f1), larger(f2, f3));
        const ivec i0 = f0 == best, i1 = (f1 == best) & ~i0, i2 = (f2 == best) & ~(i0 | i1);
        const ivec i3 = ~(i0 | i1 | i2);
        t[0] = choose(i0, g, zero()), t[1] = choose(i1, g, zero());
        t[side] = choose(i2, g, zero()), t[side + 1] = choose(i3, g, zero());
      }
}

// ---- layers ------------------------------------------------------------------------------------

static const vec *input(const Network *n, int layer, int block) {
  // Those of the first layer are kept; the others are made again where there are several blocks.
  return n->layer[layer].input + (layer == 0 ? block * SIDE * SIDE : 0);
}

static void forward_conv(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  conv(input(n, layer, block), l->in, l->side + l->kernel - 1, l->packed, l->kernel,
       l->active + block * l->out * plane_of(l), l->out, l->side, 1);
}

// To the next layer's input or, if there is none, to `normal`.
static void forward_norm(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  if (layer == n->layers - 1) {
    normalize(l, block, l->normal, 0);
  } else if (l->pool) {
    normalize(l, block, l->normal, 0);
    pool(l, l->normal, l[1].input);
  } else {
    normalize(l, block, l[1].input, l[1].pad);
  }
}

static void backward_conv(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const int K = l->kernel, gside = l->side + 2 * (K - 1 - l->pad);
  weight_gradient(l, input(n, layer, block), l->gradient);
  if (layer == 0) return;
  const Layer *below = l - 1;
  vec *d = dnormal(below, block);
  if (below->pool) {
    vec scratch[below->out * plane_of(below) / 4];
    conv(l->gradient, l->out, gside, l->turned, K, scratch, l->in, gside - K + 1, 0);
    pool_backward(below, below->normal, scratch, d);
  } else {
    conv(l->gradient, l->out, gside, l->turned, K, d, l->in, gside - K + 1, 0);
  }
}

// Average, linear layer and, if there are labels, cross-entropy with its gradients times `share`.
static void head(const Network *n, int block, const uint8_t *labels, int lanes, float share,
                 float *logits, double *loss, int64_t *correct) {
  const Layer *l = n->layer + n->layers - 1;
  const int size = plane_of(l), out = l->out;
  const vec *z = l->normal;
  vec f[out], y[CLASSES], dy[CLASSES];
  for (int c = 0; c < out; c++) {
    vec sum = zero();
    for (int i = 0; i < size; i++) sum += z[c * size + i];
    f[c] = sum / (float)size;
  }
  for (int k = 0; k < CLASSES; k++) {
    y[k] = all(n->bias[k]);
    for (int c = 0; c < out; c++) y[k] += f[c] * n->weight[k * out + c];
    dy[k] = zero();
  }
  for (int i = 0; i < lanes; i++) {
    int best = 0;
    for (int k = 1; k < CLASSES; k++)
      if (y[k][i] > y[best][i]) best = k;
    if (logits)
      for (int k = 0; k < CLASSES; k++) logits[i * CLASSES + k] = y[k][i];
    if (!labels) continue;
    float sum = 0, e[CLASSES];
    for (int k = 0; k < CLASSES; k++) sum += e[k] = expf(y[k][i] - y[best][i]);
    *loss += logf(sum) + y[best][i] - y[labels[i]][i];
    *correct += best == labels[i];
    for (int k = 0; k < CLASSES; k++) dy[k][i] = (e[k] / sum - (k == labels[i])) * share;
  }
  if (!labels) return;
  for (int k = 0; k < CLASSES; k++) {
    n->bias_sums[k] += dy[k];
    for (int c = 0; c < out; c++) n->weight_sums[k * out + c] += dy[k] * f[c];
  }
  for (int c = 0; c < out; c++) {
    vec d = zero();
    for (int k = 0; k < CLASSES; k++) d += dy[k] * n->weight[k * out + c];
    d /= (float)size;
    for (int i = 0; i < size; i++) dnormal(l, block)[c * size + i] = d;
  }
}

// ---- images ------------------------------------------------------------------------------------

// The whole number next to a position, or the border's where that is outside.
INLINE vec nearest(vec position) {
  const vec least = all(-1), most = all(SIDE);
  const vec whole = __builtin_elementwise_rint(position);
  return choose(whole < least, least, choose(whole > most, most, whole));
}

// Where the affine maps take each pixel from, in images with a border of background; null maps
// leave the images as they are.
static void fetch(const Network *n, const uint8_t *images, const int64_t *order, const float *maps,
                  int lanes, vec *to) {
  const float centre = (SIDE - 1) / 2.0f;
  const uint8_t *image[LANES];
  vec m[6];
  for (int i = 0; i < LANES; i++) {
    const int j = i < lanes ? i : 0;
    image[i] = images + order[j] * BORDERED * BORDERED + BORDERED + 1;
    for (int k = 0; k < 6; k++) m[k][i] = maps ? maps[6 * j + k] : k == 0 || k == 4;
  }
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++) {
      const vec px = all(x - centre), py = all(y - centre);
      const vec column = nearest(m[0] * px + m[1] * py + m[2] + centre);
      const vec row = nearest(m[3] * px + m[4] * py + m[5] + centre);
      const ivec index = __builtin_convertvector(row * BORDERED + column, ivec);
      float *shade = (float *)(to + y * SIDE + x);
      for (int i = 0; i < LANES; i++) shade[i] = n->shades[image[i][index[i]]];
    }
}

static void clear(const Layer *l) {
  const int n = l->norm == ELEMENT ? l->out * plane_of(l) : l->out;
  memset(l->weight_sums, 0, sizeof(vec) * l->out * l->in * l->kernel * l->kernel);
  memset(l->scale_sums, 0, sizeof(part) * n);
  memset(l->shift_sums, 0, sizeof(part) * n);
}

static void collect(const vec *sums, float *gradient, int n) {
  for (int i = 0; i < n; i++) gradient[i] = total(sums[i]);
}

// ---- a step ------------------------------------------------------------------------------------

int lanes(void) { return LANES; }

INLINE int lanes_left(int count, int first) { return count - first < LANES ? count - first : LANES; }

// Logits (count, 10) of images (., 30, 30), in evaluation mode.
void predict(const Network *n, const uint8_t *images, const int64_t *order, int count,
             float *logits) {
  for (int i = 0; i < n->layers; i++) pack(n->layer + i);
  for (int first = 0; first < count; first += LANES) {
    const int lanes = lanes_left(count, first);
    fetch(n, images, order + first, NULL, lanes, n->layer[0].input);
    for (int i = 0; i < n->layers; i++) {
      const Layer *l = n->layer + i;
      forward_conv(n, i, 0);
      if (l->norm == BATCH)
        running_statistics(l);
      else
        moments(l, 0), group_statistics(l);
      forward_norm(n, i, 0);
    }
    head(n, 0, NULL, lanes, 0, logits + first * CLASSES, NULL, NULL);
  }
}

// Layer by layer, each block through all that comes before the next statistics of the batch.
static void forward(const Network *n, int blocks, int count) {
  for (int i = 0; i < n->layers; i++) {
    const Layer *l = n->layer + i;
    for (int b = 0; b < blocks; b++) {
      if (i > 0) forward_norm(n, i - 1, b);
      forward_conv(n, i, b);
      moments(l, b);
    }
    if (l->norm == BATCH)
      batch_statistics(l, count);
    else
      group_statistics(l);
  }
}

static void backward(const Network *n, int first, int blocks, int count) {
  for (int i = n->layers - 1; i >= 0; i--) {
    const Layer *l = n->layer + i;
    if (l->norm == BATCH)
      batch_means(l, count);
    else
      group_means(l);
    for (int b = 0; b < blocks; b++) {
      normal_backward(l, b, mask(lanes_left(count, first + b * LANES)));
      if (i > 0 && blocks > 1) forward_norm(n, i - 1, b);
      backward_conv(n, i, b);
      if (i > 0) gradient_sums(l - 1, b);
    }
  }
}

// Gradients of the mean loss of `count` images (., 30, 30) under their affine maps (count, 2, 3).
// Returns the sum of the losses and adds to the number of images classified correctly.
double step(const Network *n, const uint8_t *images, const uint8_t *labels, const int64_t *order,
            const float *maps, int count, int64_t *correct) {
  double loss = 0;
  for (int i = 0; i < n->layers; i++)
    pack(n->layer + i), pack_turned(n->layer + i), clear(n->layer + i);
  const int out = n->layer[n->layers - 1].out;
  memset(n->weight_sums, 0, sizeof(vec) * CLASSES * out);
  memset(n->bias_sums, 0, sizeof(vec) * CLASSES);
  // Where images are independent, each block goes all the way while it is in the cache.
  const int all_blocks = (count + LANES - 1) / LANES;
  const int blocks = n->layer[0].norm == BATCH ? all_blocks : 1;
  for (int first = 0; first < count; first += blocks * LANES) {
    for (int b = 0; b < blocks; b++) {
      const int start = first + b * LANES;
      fetch(n, images, order + start, maps + 6 * start, lanes_left(count, start),
            n->layer[0].input + b * SIDE * SIDE);
    }
    forward(n, blocks, count);
    for (int b = 0; b < blocks; b++) {
      const int start = first + b * LANES, lanes = lanes_left(count, start);
      uint8_t label[LANES];
      for (int i = 0; i < lanes; i++) label[i] = labels[order[start + i]];
      forward_norm(n, n->layers - 1, b);
      head(n, b, label, lanes, 1.0f / count, NULL, &loss, correct);
      gradient_sums(n->layer + n->layers - 1, b);
    }
    backward(n, first, blocks, count);
  }
  for (int i = 0; i < n->layers; i++) {
    const Layer *l = n->layer + i;
    const int size = l->norm == ELEMENT ? l->out * plane_of(l) : l->out;
    collect(l->weight_sums, l->weight_gradient, l->out * l->in * l->kernel * l->kernel);
    for (int k = 0; k < size; k++) {
      l->scale_gradient[k] = total_part(l->scale_sums[k]);
      l->shift_gradient[k] = total_part(l->shift_sums[k]);
    }
  }
  collect(n->weight_sums, n->weight_gradient, CLASSES * out);
  collect(n->bias_sums, n->bias_gradient, CLASSES);
  return loss;
}
