// Training and inference of the network on a CPU, in float32, with the same bits on every processor.
//
// LANES = 16 images lie side by side in a `vec`, whatever the processor: one, two or four of its
// registers hold it. A block of images is a tensor [channel][y][x][lane]. Every operation is the
// same for all lanes, so nothing is shuffled between them and no number of channels is too odd.
// Convolutions keep a tile of sums in registers, channels by neighbouring values, so that all but
// one in three instructions is a multiply-add. docs/arithmetic.md has the rules that fix the bits.
//
// engine.py puts the network's shapes before this text: SIDE of the images, CLASSES, LAYERS,
// SHAPES (a `Shape` each), EACH(DO) = DO(0) DO(1) …, and `Job`, which it shares with Python.
//
//   in, out  channels of a layer's input and output     K  side of its kernel, 1 or 3
//   S        side of its output, in pixels              P  S·S pixels, a `plane`
//   block    LANES images: a tensor (channels, S, S) of a block has a `vec` per element
//   C, N     channels and registers of a tile           `packed` weights: in a tile's order

typedef struct {
  int in, out, kernel, pad, side, pool;  // side: of the convolution's output, before a 2×2 pool
  // Tiles that fit the registers: channels by registers of values of `conv`, of its gradient, and
  // channels of the weights' gradient. Whatever they are, the bits are the same.
  int channels, values, channels_back, values_back, channels_weights;
} Shape;

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

static const Shape SHAPE[LAYERS] = {SHAPES};

// ---- all that a processor may do ---------------------------------------------------------------
// + − × ÷ and square root are IEEE 754's, rounded to nearest, with subnormal numbers. Contraction
// is off (-ffp-contract=off), so a multiply-add is fused where `fused` says so and nowhere else.

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define PARTS (LANES / WIDTH)
#define TILE 32  // registers that any processor has: no tile has more sums

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float reg __attribute__((vector_size(4 * WIDTH)));  // what a register holds of a vec
// Sums over images need no lane each: a quarter of the lanes is a quarter of the memory.
typedef float part __attribute__((vector_size(LANES)));

#if defined(__FMA__) || defined(__aarch64__)
INLINE reg fused_reg(reg a, reg b, reg c) { return __builtin_elementwise_fma(a, b, c); }
#else
// a·b + c, rounded once: the product is exact in double precision; the sum is rounded to odd, so
// that rounding it again, to float, is as good as rounding once (Boldo & Melquiond 2008).
static __attribute__((noinline)) reg fused_reg(reg a, reg b, reg c) {
  typedef double wide __attribute__((vector_size(8 * WIDTH)));
  typedef int64_t bits __attribute__((vector_size(8 * WIDTH)));
  const wide product = __builtin_convertvector(a, wide) * __builtin_convertvector(b, wide);
  const wide addend = __builtin_convertvector(c, wide), zero = (wide){0};
  wide sum = product + addend;
  const wide back = sum - product, error = (product - (sum - back)) + (addend - back);  // Knuth
  const bits inexact = (bits)(error > zero) | (bits)(error < zero);
  const bits even = ((bits)sum & 1) - 1, away = (bits)(error > zero) == (bits)(sum > zero);
  sum = (wide)((bits)sum + (((away & 2) - 1) & inexact & even));
  return __builtin_convertvector(sum, reg);
}
#endif

INLINE vec fused(vec a, vec b, vec c) {
#if WIDTH == LANES
  return fused_reg(a, b, c);
#elif defined(__FMA__) || defined(__aarch64__)
  return __builtin_elementwise_fma(a, b, c);
#else
  reg x[PARTS], y[PARTS], z[PARTS];
  __builtin_memcpy(x, &a, sizeof a), __builtin_memcpy(y, &b, sizeof b);
  __builtin_memcpy(z, &c, sizeof c);
  for (int i = 0; i < PARTS; i++) z[i] = fused_reg(x[i], y[i], z[i]);
  __builtin_memcpy(&c, z, sizeof c);
  return c;
#endif
}

INLINE vec zero(void) { return (vec){0}; }
// Not 0 + value, which is another number where value is -0: the compiler would have to add.
INLINE vec all(float value) { return value - (vec){0}; }
INLINE vec choose(ivec where, vec a, vec b) {
  return (vec)(((ivec)a & where) | ((ivec)b & ~where));
}
// The second where neither is larger: of 0 and -0, of a NaN and whatever.
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }
INLINE reg positive(reg v) {
  typedef int32_t bits __attribute__((vector_size(4 * WIDTH)));
  return (reg)((bits)v & (bits)(v > (reg){0}));  // 0 for what is not above 0, -0 and NaN included
}
INLINE vec root(vec v) { return __builtin_elementwise_sqrt(v); }
// To the nearest whole number, of two the even one; for |v| < 2^22, in two additions.
INLINE vec nearest(vec v) {
  const vec shift = all(0x1.8p23f);
  return (v + shift) - shift;
}
// The one tree by which lanes are summed: quarters, then what is left of them.
INLINE part fold(vec v) {
  part quarter[4];
  __builtin_memcpy(quarter, &v, sizeof v);
  return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}
INLINE float total_part(part v) { return (v[0] + v[1]) + (v[2] + v[3]); }
INLINE float total(vec v) { return total_part(fold(v)); }

#define LN2_HIGH 0x1.62e42feep-1  // with so few digits that its products with exponents are exact
#define LN2_LOW 0x1.a39ef35793c76p-33

// e^x for x <= 0, within 1 unit in the last place; 0 below -700, NaN for NaN. Cody & Waite's
// reduction by multiples of ln 2, then Taylor's series.
static double exponential(double x) {
  if (!(x > -700)) return x <= -700 ? 0 : x;
  const double shift = 0x1.8p52, k = (x * 0x1.71547652b82fep0 + shift) - shift;
  const double r = (x - k * LN2_HIGH) - k * LN2_LOW;
  static const double reciprocal[] = {1.0 / 12, 1.0 / 11, 1.0 / 10, 1.0 / 9, 1.0 / 8, 1.0 / 7,
                                   1.0 / 6,  1.0 / 5,  1.0 / 4,  1.0 / 3, 1.0 / 2};
  double sum = 1 + r * (1.0 / 13);
  for (int i = 0; i < 11; i++) sum = 1 + r * reciprocal[i] * sum;
  const int64_t exponent = ((int64_t)k + 1023) << 52;
  double scale;
  __builtin_memcpy(&scale, &exponent, sizeof scale);
  return (1 + r * sum) * scale;
}

// The natural logarithm of x >= 1, within 1 unit in the last place; NaN and infinity for
// themselves. x = 2^k·(1 + f), and with s = f / (2 + f) the series of 2·artanh(s).
static double logarithm(double x) {
  if (!(x < 0x1p1023)) return x;
  int64_t digits;
  __builtin_memcpy(&digits, &x, sizeof x);
  int64_t exponent = (digits >> 52) - 1023;
  digits = (digits & 0xfffffffffffff) | (1023LL << 52);
  double m;
  __builtin_memcpy(&m, &digits, sizeof m);
  if (m > 0x1.6a09e667f3bcdp0) m *= 0.5, exponent++;
  const double f = m - 1, s = f / (2 + f), z = s * s, half = 0.5 * f * f, k = (double)exponent;
  double series = 0;
  for (int i = 25; i >= 3; i -= 2) series = z * (series + 2.0 / i);
  return k * LN2_HIGH - ((half - (s * (half + series) + k * LN2_LOW)) - f);
}

// Rounding to nearest and subnormal numbers, whatever the calling thread had set.
#if defined(__x86_64__)
INLINE uint64_t enter(void) {
  const unsigned before = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(0x1f80);
  return before;
}
INLINE void leave(uint64_t before) { __builtin_ia32_ldmxcsr((unsigned)before); }
#elif defined(__aarch64__)
INLINE uint64_t enter(void) {
  uint64_t before;
  __asm__ volatile("mrs %0, fpcr\n\tmsr fpcr, xzr" : "=&r"(before)::"memory");
  return before;
}
INLINE void leave(uint64_t before) { __asm__ volatile("msr fpcr, %0" ::"r"(before) : "memory"); }
#endif

// ---- the network in memory ---------------------------------------------------------------------

enum { BATCH, GROUP, ELEMENT };

// One convolution with its ReLU, normalization and, after it or not, pool. Buffers hold a block of
// images, or where it says so one after the other.
typedef struct {
  Shape shape;
  int norm, groups, affine;  // affine: how many scales there are
  float *weight, *scale, *shift;  // (out, in, K, K), (affine), (affine)
  float *weight_gradient, *scale_gradient, *shift_gradient;
  float *running_mean, *running_variance;  // (out)
  vec *input;     // (in, S + K - 1, …), with the border of zeros that `pad` asks for
  vec *relu_out;  // blocks of (out, S, S): the convolution's output after ReLU
  vec *norm_out;  // (out, S, S): after normalization, where a pool comes before the next layer
  vec *gradient;  // (out, S, S) gradient of the convolution's output, in a border of zeros
  vec *mean, *rstd;  // blocks of (out): the mean, and one over the standard deviation
  vec *sums, *products;   // (out): gradients of the shift, and of the scale, times the scale
  vec *weight_sums;               // gradients of all images
  part *scale_sums, *shift_sums;  // likewise
  float *packed, *packed_transposed;  // weights as `conv` reads them, forward and backward
} Layer;

typedef struct {
  Layer layer[LAYERS];
  float *weight, *bias, *weight_gradient, *bias_gradient;  // of the linear layer: (CLASSES, out)
  vec *weight_sums, *bias_sums;
  vec *features;  // (out, S, S) of the last layer, after its pool
  vec *pooled;    // gradient of a pool's output
  // Gradient of a layer's normalized output, blocks of (out, S, S), `stride` apart. All layers
  // share it: on the way back a layer's gradient overwrites that of the layer after it.
  vec *dnorm;
  int64_t stride;
  vec *parameters, *velocity, *gradients;  // all of them, in the order of `Job`
  int64_t count;                           // how many
  const float *pixel_lut;  // what each of the 256 pixel values is to the network
} Network;

INLINE int plane_of(const Layer *l) { return l->shape.side * l->shape.side; }
INLINE int after_pool(Shape s) { return s.pool ? s.side / 2 : s.side; }
INLINE int framed(Shape s) { return s.side + s.kernel - 1; }  // the input, its border included
// Zeros around a gradient, so that the transposed kernel reaches all of the input. A kernel of 1
// whose input is padded reaches less than the gradient has: then the gradient's rim is left out.
INLINE int border(Shape s) { return s.kernel - 1 > s.pad ? s.kernel - 1 - s.pad : 0; }
INLINE int rim(Shape s) { return s.pad > s.kernel - 1 ? s.pad - (s.kernel - 1) : 0; }
INLINE int spread(Shape s) { return s.side + 2 * border(s); }
INLINE vec *dnorm(const Network *n, int block) { return n->dnorm + block * n->stride; }

// Memory is handed out from one place; where there is none yet, only its amount is counted.
static void *take(char **memory, int64_t *used, int64_t bytes) {
  void *taken = *memory ? *memory + *used : 0;
  *used += (bytes + 63) / 64 * 64;
  return taken;
}

// Lay out a network for `blocks` blocks; returns the bytes that takes, beyond zeroing them all.
static int64_t lay_out(Network *n, const Job *job, int64_t blocks, char *memory) {
  int64_t used = 0, offset = 0, at = 0, deepest = 0, widest = 0;
#define VECS(count) take(&memory, &used, sizeof(vec) * (count))
  for (int i = 0; i < LAYERS; i++) {
    const Shape s = SHAPE[i];
    const int64_t p = s.side * s.side;
    n->count += s.out * s.in * s.kernel * s.kernel + 2 * s.out * (job->norms[i] == ELEMENT ? p : 1);
    if (s.out * p > deepest) deepest = s.out * p;
    if (s.out * after_pool(s) * after_pool(s) > widest)
      widest = s.out * after_pool(s) * after_pool(s);
  }
  const Shape last = SHAPE[LAYERS - 1];
  n->count += CLASSES * last.out + CLASSES;
  n->parameters = VECS((n->count + LANES - 1) / LANES);
  n->velocity = VECS((n->count + LANES - 1) / LANES);
  n->gradients = VECS((n->count + LANES - 1) / LANES);
#define TENSOR(name, size)                                        \
  n_##name = memory ? (float *)n->parameters + offset : 0;        \
  g_##name = memory ? (float *)n->gradients + offset : 0;         \
  offset += size
  float *n_weight, *g_weight, *n_scale, *g_scale, *n_shift, *g_shift, *n_bias, *g_bias;
  for (int i = 0; i < LAYERS; i++) {
    Layer *l = n->layer + i;
    const Shape s = SHAPE[i];
    const int64_t p = s.side * s.side, k = s.kernel * s.kernel;
    l->shape = s, l->norm = job->norms[i], l->groups = job->groups[i];
    l->affine = l->norm == ELEMENT ? s.out * p : s.out;
    TENSOR(weight, s.out * s.in * k);
    TENSOR(scale, l->affine);
    TENSOR(shift, l->affine);
    l->weight = n_weight, l->scale = n_scale, l->shift = n_shift;
    l->weight_gradient = g_weight, l->scale_gradient = g_scale, l->shift_gradient = g_shift;
    if (l->norm == BATCH) {
      l->running_mean = job->statistics + at, l->running_variance = job->statistics + at + s.out;
      at += 2 * s.out;
    }
    // The images are kept; inputs of other layers are made again where there are several blocks.
    l->input = VECS((i == 0 ? blocks : 1) * s.in * framed(s) * framed(s));
    l->relu_out = VECS(blocks * s.out * p);
    l->norm_out = VECS(s.out * p);
    l->gradient = VECS(s.out * spread(s) * spread(s));
    l->mean = VECS(blocks * s.out), l->rstd = VECS(blocks * s.out);
    l->sums = VECS(s.out), l->products = VECS(s.out);
    l->weight_sums = VECS(s.out * s.in * k);
    l->scale_sums = take(&memory, &used, sizeof(part) * l->affine);
    l->shift_sums = take(&memory, &used, sizeof(part) * l->affine);
    l->packed = take(&memory, &used, sizeof(float) * s.out * s.in * k);
    l->packed_transposed = take(&memory, &used, sizeof(float) * s.out * s.in * k);
  }
  TENSOR(weight, CLASSES * last.out);
  TENSOR(bias, CLASSES);
  n->weight = n_weight, n->bias = n_bias, n->weight_gradient = g_weight, n->bias_gradient = g_bias;
  n->weight_sums = VECS(CLASSES * last.out), n->bias_sums = VECS(CLASSES);
  n->features = last.pool ? VECS(last.out * after_pool(last) * after_pool(last))
                          : n->layer[LAYERS - 1].norm_out;
  n->pooled = VECS(widest);
  n->stride = deepest, n->dnorm = VECS(blocks * deepest);
  n->pixel_lut = job->pixel_lut;
  return used;
}

// Where images are independent of each other, one block of them at a time will do.
static int64_t blocks_of(const Job *job) {
  const int64_t most = job->batch_size < job->count ? job->batch_size : job->count;
  for (int i = 0; i < LAYERS; i++)
    if (job->norms[i] == BATCH && job->velocity) return (most + LANES - 1) / LANES;
  return 1;
}

static void set_up(Network *n, const Job *job) {
  *n = (Network){0};
  __builtin_memset(job->memory, 0, (size_t)job->memory_size);
  lay_out(n, job, blocks_of(job), job->memory);
  __builtin_memcpy(n->parameters, job->parameters, sizeof(float) * (size_t)n->count);
}

// ---- convolution -------------------------------------------------------------------------------

// y[c][p] = Σ w·x for `C` channels of `N` registers of neighbouring values. Lengths are counted in
// registers. The sum's order is that of in, ky, kx, whatever the tile.
INLINE void conv_tile(const int C, const int N, const int K, const int in, const reg *x,
                      const int xrow, const int xplane, const float *w, reg *y, const int yplane,
                      const int relu) {
  reg sum[TILE];
  UNROLL for (int c = 0; c < C * N; c++) sum[c] = (reg){0};
  for (int i = 0; i < in; i++)
    for (int ky = 0; ky < K; ky++) {
      const reg *row = x + i * xplane + ky * xrow;
      UNROLL for (int kx = 0; kx < K; kx++) {
        UNROLL for (int c = 0; c < C; c++) {
          const reg weight = w[c] - (reg){0};
          UNROLL for (int p = 0; p < N; p++)
            sum[c * N + p] = fused_reg(weight, row[kx * PARTS + p], sum[c * N + p]);
        }
        w += C;
      }
    }
  UNROLL for (int c = 0; c < C; c++) {
    UNROLL for (int p = 0; p < N; p++)
      y[c * yplane + p] = relu ? positive(sum[c * N + p]) : sum[c * N + p];
  }
}

// `C` channels of all pixels.
INLINE void conv_planes(const int C, const int N, const int K, const int in, const reg *x,
                        const int xside, const float *w, reg *y, const int side, const int relu) {
  const int xrow = xside * PARTS, xplane = xside * xrow, yrow = side * PARTS, yplane = side * yrow;
  const int rest = yrow % N;
  for (int row = 0; row < side; row++) {
    for (int p = 0; p < yrow - rest; p += N)
      conv_tile(C, N, K, in, x + row * xrow + p, xrow, xplane, w, y + row * yrow + p, yplane, relu);
    if (rest)
      conv_tile(C, rest, K, in, x + row * xrow + yrow - rest, xrow, xplane, w,
                y + row * yrow + yrow - rest, yplane, relu);
  }
}

// x: (in, xside, xside); packed as by `pack`; y: (out, side, side).
INLINE void conv(const int C, const int N, const int K, const int in, const vec *x, const int xside,
                 const float *packed, const int out, vec *y, const int side, const int relu) {
  const int rest = out % C, size = in * K * K, plane = side * side * PARTS;
  for (int c = 0; c < out - rest; c += C)
    conv_planes(C, N, K, in, (const reg *)x, xside, packed + c * size, (reg *)y + c * plane, side,
                relu);
  if (rest)
    conv_planes(rest, N, K, in, (const reg *)x, xside, packed + (out - rest) * size,
                (reg *)y + (out - rest) * plane, side, relu);
}

// Weights (out, in, K, K) in the order in which conv_tile reads them.
static void pack(const Layer *l) {
  const Shape s = l->shape;
  const int kk = s.kernel * s.kernel;
  float *packed = l->packed;
  for (int c = 0; c < s.out; c += s.channels)
    for (int i = 0; i < s.in * kk; i++)
      for (int o = c; o < s.out && o < c + s.channels; o++) *packed++ = l->weight[o * s.in * kk + i];
}

// Weights for the gradient of the input: (in, out, K, K), the kernel turned by 180 degrees.
static void pack_transposed(const Layer *l) {
  const Shape s = l->shape;
  const int kk = s.kernel * s.kernel;
  float *packed = l->packed_transposed;
  for (int c = 0; c < s.in; c += s.channels_back)
    for (int o = 0; o < s.out; o++)
      for (int k = kk - 1; k >= 0; k--)
        for (int i = c; i < s.in && i < c + s.channels_back; i++)
          *packed++ = l->weight[(o * s.in + i) * kk + k];
}

// sums[c][k] += Σ over some rows of gradient·input, for `C` channels and a row of the kernel.
INLINE void weights_tile(const int C, const int K, const reg *x, const int xrow, const reg *g,
                         const int grow, const int gplane, const int rows, const int columns,
                         reg *sums, const int sumplane) {
  reg sum[TILE];
  UNROLL for (int c = 0; c < C; c++) {
    UNROLL for (int k = 0; k < K; k++) sum[c * K + k] = sums[c * sumplane + k * PARTS];
  }
  for (int r = 0; r < rows; r++)
    for (int p = 0; p < columns; p++) {
      UNROLL for (int c = 0; c < C; c++) {
        const reg gradient = g[c * gplane + r * grow + p * PARTS];
        UNROLL for (int k = 0; k < K; k++)
          sum[c * K + k] = fused_reg(gradient, x[r * xrow + (p + k) * PARTS], sum[c * K + k]);
      }
    }
  UNROLL for (int c = 0; c < C; c++) {
    UNROLL for (int k = 0; k < K; k++) sums[c * sumplane + k * PARTS] = sum[c * K + k];
  }
}

// x: (in, framed, framed); g: the gradient in its border; sums: (out, in, K, K).
INLINE void weight_gradient(const Shape s, const vec *x, const vec *g, vec *sums) {
  const int C = s.channels_weights, K = s.kernel, rest = s.out % C;
  const int xrow = framed(s) * PARTS, xplane = framed(s) * xrow;
  const int grow = spread(s) * PARTS, gplane = spread(s) * grow, sumplane = s.in * K * K * PARTS;
  // A few rows of all channels stay in the cache.
  const int most = s.side < 36 ? 36 / s.side : 1;
  g += border(s) * (spread(s) + 1);
  for (int row = 0; row < s.side; row += most) {
    const int rows = s.side - row < most ? s.side - row : most;
    for (int c = 0; c < s.out; c += C)
      for (int i = 0; i < s.in; i++)
        for (int ky = 0; ky < K; ky++)
          for (int lane = 0; lane < PARTS; lane++) {
            const reg *from = (const reg *)x + i * xplane + (row + ky) * xrow + lane;
            const reg *by = (const reg *)g + c * gplane + row * grow + lane;
            reg *to = (reg *)sums + c * sumplane + (i * K + ky) * K * PARTS + lane;
            if (c + C <= s.out)
              weights_tile(C, K, from, xrow, by, grow, gplane, rows, s.side, to, sumplane);
            else if (rest)
              weights_tile(rest, K, from, xrow, by, grow, gplane, rows, s.side, to, sumplane);
          }
  }
}

// ---- normalization -----------------------------------------------------------------------------

static const float EPSILON = 1e-5f, RUNNING = 0.1f;  // PyTorch's

INLINE vec mask(int lanes) {
  float m[LANES];
  for (int i = 0; i < LANES; i++) m[i] = i < lanes;
  vec v;
  __builtin_memcpy(&v, m, sizeof v);
  return v;
}

// Mean, and sum of squared deviations from it, of each channel of a block: (out) each. The sum is
// kept in the place of `rstd` until `group_statistics` or `batch_statistics` turn it into that.
static void moments(const Layer *l, int block) {
  const int p = plane_of(l), out = l->shape.out;
  for (int c = 0; c < out; c++) {
    const vec *a = l->relu_out + (block * out + c) * p;
    vec s0 = zero(), s1 = zero();
    for (int i = 0; i < p - 1; i += 2) s0 += a[i], s1 += a[i + 1];
    if (p % 2) s0 += a[p - 1];
    const vec m = (s0 + s1) / (float)p;
    s0 = s1 = zero();
    for (int i = 0; i < p - 1; i += 2) {
      const vec d0 = a[i] - m, d1 = a[i + 1] - m;
      s0 = fused(d0, d0, s0), s1 = fused(d1, d1, s1);
    }
    if (p % 2) s0 = fused(a[p - 1] - m, a[p - 1] - m, s0);
    l->mean[block * out + c] = m, l->rstd[block * out + c] = s0 + s1;
  }
}

// Mean and rstd over the channels of each group and space, from the channels' moments: (out) each.
static void group_statistics(const Layer *l) {
  vec *mean = l->mean, *rstd = l->rstd;
  const int size = l->shape.out / l->groups;
  const float p = (float)plane_of(l);
  for (int g = 0; g < l->shape.out; g += size) {
    vec m = zero(), m2 = zero();
    for (int c = g; c < g + size; c++) m += mean[c];
    m /= (float)size;
    for (int c = g; c < g + size; c++) {
      const vec d = mean[c] - m;
      m2 += fused(d * d, all(p), rstd[c]);
    }
    const vec scale = 1 / root(m2 / (p * (float)size) + EPSILON);
    for (int c = g; c < g + size; c++) mean[c] = m, rstd[c] = scale;
  }
}

static float lane_of(const vec *v, int lane) { return ((const float *)v)[lane]; }

// Mean and rstd of each channel over `count` images and space, for all blocks: (out) each; updates
// the running statistics.
static void batch_statistics(const Layer *l, int count) {
  const int out = l->shape.out, blocks = (count + LANES - 1) / LANES;
  const double p = plane_of(l), size = p * count;
  for (int c = 0; c < out; c++) {
    double mean = 0, m2 = 0;
    for (int i = 0; i < count; i++) mean += lane_of(l->mean + i / LANES * out + c, i % LANES);
    mean /= count;
    for (int i = 0; i < count; i++) {
      const double d = lane_of(l->mean + i / LANES * out + c, i % LANES) - mean;
      m2 += lane_of(l->rstd + i / LANES * out + c, i % LANES) + d * d * p;
    }
    const float rstd = (float)(1 / __builtin_sqrt(m2 / size + EPSILON));
    for (int b = 0; b < blocks; b++) {
      l->mean[b * out + c] = all((float)mean);
      l->rstd[b * out + c] = all(rstd);
    }
    l->running_mean[c] += RUNNING * ((float)mean - l->running_mean[c]);
    l->running_variance[c] += RUNNING * ((float)(m2 / (size - 1)) - l->running_variance[c]);
  }
}

// Mean and rstd of each channel as batch norm applies them in evaluation mode.
static void running_statistics(const Layer *l) {
  for (int c = 0; c < l->shape.out; c++) {
    l->mean[c] = all(l->running_mean[c]);
    l->rstd[c] = 1 / root(all(l->running_variance[c] + EPSILON));
  }
}

// norm_out = (relu_out − mean)·rstd·scale + shift for a block, (out, S, S), written inside a border
// of `frame` zeros.
INLINE void normalize(const Layer *l, const Shape s, int block, vec *to, const int frame) {
  const int side = s.side, p = side * side, tside = side + 2 * frame;
  for (int c = 0; c < s.out; c++) {
    const vec *a = l->relu_out + (block * s.out + c) * p;
    const vec mean = l->mean[block * s.out + c], rstd = l->rstd[block * s.out + c];
    vec *t = to + c * tside * tside + frame * (tside + 1);
    if (l->norm == ELEMENT) {
      const float *scale = l->scale + c * p, *shift = l->shift + c * p;
      for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
          const int i = y * side + x;
          t[y * tside + x] = fused((a[i] - mean) * rstd, all(scale[i]), all(shift[i]));
        }
    } else {
      const vec scale = rstd * l->scale[c], shift = l->shift[c] - mean * scale;
      for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) t[y * tside + x] = fused(a[y * side + x], scale, shift);
    }
  }
}

// For a block's channels, the sums over the plane of the gradient of the normalized output, and of
// its product with the normalized value: (out) each, and the gradients of shift and scale.
static void gradient_sums(const Network *n, const Layer *l, int block) {
  const int p = plane_of(l), out = l->shape.out;
  for (int c = 0; c < out; c++) {
    const vec *a = l->relu_out + (block * out + c) * p, *d = dnorm(n, block) + c * p;
    const vec mean = l->mean[block * out + c], rstd = l->rstd[block * out + c];
    vec sum = zero(), product = zero();
    if (l->norm == ELEMENT) {
      part *scale_sums = l->scale_sums + c * p, *shift_sums = l->shift_sums + c * p;
      const float *scale = l->scale + c * p;
      for (int i = 0; i < p; i++) {
        const vec both = d[i] * ((a[i] - mean) * rstd), factor = all(scale[i]);
        shift_sums[i] += fold(d[i]), scale_sums[i] += fold(both);
        sum = fused(d[i], factor, sum), product = fused(both, factor, product);
      }
      l->sums[c] = sum, l->products[c] = product;
    } else {
      for (int i = 0; i < p; i++) sum += d[i], product = fused(d[i], a[i] - mean, product);
      product *= rstd;
      l->shift_sums[c] += fold(sum), l->scale_sums[c] += fold(product);
      l->sums[c] = sum * l->scale[c], l->products[c] = product * l->scale[c];
    }
  }
}

// Gradient of the convolution's output, (out, S, S): rstd·(scale·d − sum − normalized·product), the
// sums being means by now, and 0 where ReLU gave 0.
INLINE void norm_backward(const Network *n, const Layer *l, const Shape s, int block, vec lanes) {
  const int side = s.side, p = side * side, gside = spread(s);
  for (int c = 0; c < s.out; c++) {
    const vec *a = l->relu_out + (block * s.out + c) * p, *d = dnorm(n, block) + c * p;
    const vec mean = l->mean[block * s.out + c], rstd = l->rstd[block * s.out + c] * lanes;
    const vec m1 = -l->sums[c], m2 = -(l->products[c] * l->rstd[block * s.out + c]);
    vec *g = l->gradient + c * gside * gside + border(s) * (gside + 1);
    const float *scale = l->norm == ELEMENT ? l->scale + c * p : l->scale + c;
    const int step = l->norm == ELEMENT;
    for (int y = 0; y < side; y++)
      for (int x = 0; x < side; x++) {
        const int i = y * side + x;
        const vec v = rstd * fused(a[i] - mean, m2, fused(d[i], all(scale[i * step]), m1));
        g[y * gside + x] = choose(a[i] > zero(), v, zero());
      }
  }
}

// Turn the channels' sums into means over their group: (out) each.
static void group_means(const Layer *l) {
  const int size = l->shape.out / l->groups;
  const float count = (float)(size * plane_of(l));
  for (int g = 0; g < l->shape.out; g += size) {
    vec sum = zero(), product = zero();
    for (int c = g; c < g + size; c++) sum += l->sums[c], product += l->products[c];
    for (int c = g; c < g + size; c++) l->sums[c] = sum / count, l->products[c] = product / count;
  }
}

// Turn the channels' sums into means over the batch and the plane: (out) each.
static void batch_means(const Layer *l, int images) {
  const float count = (float)plane_of(l) * (float)images;
  for (int c = 0; c < l->shape.out; c++) {
    l->sums[c] = all(total_part(l->shift_sums[c]) * l->scale[c] / count);
    l->products[c] = all(total_part(l->scale_sums[c]) * l->scale[c] / count);
  }
}

// ---- pool --------------------------------------------------------------------------------------
// Of an odd side the last row and column are left out, as in PyTorch.

// Max pool of 2 by 2: (out, S, S) to (out, S/2, S/2), inside a border of `frame` zeros.
static void pool(const Shape s, const vec *from, vec *to, int frame) {
  const int side = s.side, half = side / 2, tside = half + 2 * frame;
  for (int c = 0; c < s.out; c++)
    for (int y = 0; y < half; y++)
      for (int x = 0; x < half; x++) {
        const vec *f = from + (c * side + 2 * y) * side + 2 * x;
        to[(c * tside + y + frame) * tside + x + frame] =
            larger(larger(f[0], f[1]), larger(f[side], f[side + 1]));
      }
}

// Gradient of a pool's input, (out, S, S), from that of its output, (out, S/2, S/2): the first of
// the largest gets all, as in PyTorch.
static void pool_backward(const Shape s, const vec *from, const vec *d, vec *to) {
  const int side = s.side, half = side / 2;
  if (side % 2) __builtin_memset(to, 0, sizeof(vec) * (size_t)(s.out * side * side));
  for (int c = 0; c < s.out; c++)
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
// Each with its own shape as constants, so that the compiler unrolls its tiles.

// The input of a layer for a block: (in, S + K − 1, S + K − 1).
static const vec *input(const Network *n, int layer, int block) {
  const Shape s = SHAPE[0];
  return n->layer[layer].input + (layer == 0 ? block * s.in * framed(s) * framed(s) : 0);
}

// Convolution and ReLU of a layer for a block.
static void forward_conv(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const vec *x = input(n, layer, block);
  vec *y = l->relu_out + block * l->shape.out * plane_of(l);
  switch (layer) {
#define DO(i)                                                                           \
  case i:                                                                               \
    conv(SHAPE[i].channels, SHAPE[i].values, SHAPE[i].kernel, SHAPE[i].in, x,           \
         framed(SHAPE[i]), l->packed, SHAPE[i].out, y, SHAPE[i].side, 1);               \
    break;
    EACH(DO)
#undef DO
  }
}

// Normalization and pool of a layer for a block, into the next layer's input or, of the last one,
// into `features`.
static void forward_norm(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const int last = layer == LAYERS - 1, frame = last ? 0 : l[1].shape.pad;
  vec *to = last ? n->features : l[1].input;
  switch (layer) {
#define DO(i)                                                                       \
  case i:                                                                           \
    if (SHAPE[i].pool)                                                              \
      normalize(l, SHAPE[i], block, l->norm_out, 0), pool(SHAPE[i], l->norm_out, to, frame); \
    else                                                                            \
      normalize(l, SHAPE[i], block, to, SHAPE[i < LAYERS - 1 ? i + 1 : i].pad * !last);  \
    break;
    EACH(DO)
#undef DO
  }
}

// Gradient of a layer's convolution's output for a block, from `dnorm`; `lanes` is 0 where there is
// no image.
static void backward_norm(const Network *n, int layer, int block, vec lanes) {
  const Layer *l = n->layer + layer;
  switch (layer) {
#define DO(i)                                          \
  case i:                                              \
    norm_backward(n, l, SHAPE[i], block, lanes);     \
    break;
    EACH(DO)
#undef DO
  }
}

// Adds the gradient of the weights; writes that of the input, (in, …), to d where d is not 0.
INLINE void conv_backward(const Network *n, const Layer *l, const Shape s, const vec *x, vec *d) {
  weight_gradient(s, x, l->gradient, l->weight_sums);
  if (d)
    conv(s.channels_back, s.values_back, s.kernel, s.out, l->gradient + rim(s) * (spread(s) + 1),
         spread(s), l->packed_transposed, s.in, d, framed(s) - 2 * s.pad, 0);
}

// Gradients of a layer's weights and of its input for a block, through the pool before it.
static void backward_conv(const Network *n, int layer, int block) {
  const Layer *l = n->layer + layer;
  const int pooled = layer > 0 && l[-1].shape.pool;
  vec *d = layer == 0 ? 0 : pooled ? n->pooled : dnorm(n, block);
  const vec *x = input(n, layer, block);
  switch (layer) {
#define DO(i)                                       \
  case i:                                           \
    conv_backward(n, l, SHAPE[i], x, i ? d : 0);    \
    break;
    EACH(DO)
#undef DO
  }
  if (pooled) pool_backward(l[-1].shape, l[-1].norm_out, d, dnorm(n, block));
}

// Σ e^(y − largest) of CLASSES logits, in the order of classes; e and the first largest's place.
INLINE double softmax(const float *y, double *e, int *best) {
  *best = 0;
  for (int k = 1; k < CLASSES; k++)
    if (y[k] > y[*best]) *best = k;
  double sum = 0;
  for (int k = 0; k < CLASSES; k++) sum += e[k] = exponential((double)y[k] - (double)y[*best]);
  return sum;
}

// The average over the plane and the linear layer: features f (out), logits (LANES, CLASSES).
static void head(const Network *n, vec *f, float *logits) {
  const Shape s = SHAPE[LAYERS - 1];
  const int size = after_pool(s) * after_pool(s);
  for (int c = 0; c < s.out; c++) {
    vec sum = zero();
    for (int i = 0; i < size; i++) sum += n->features[c * size + i];
    f[c] = sum / (float)size;
  }
  for (int k = 0; k < CLASSES; k++) {
    vec y = all(n->bias[k]);
    for (int c = 0; c < s.out; c++) y = fused(f[c], all(n->weight[k * s.out + c]), y);
    for (int i = 0; i < LANES; i++) logits[i * CLASSES + k] = lane_of(&y, i);
  }
}

// Cross-entropy of a block and the gradients of its `share`.
static void head_backward(const Network *n, int block, const uint8_t *labels, int lanes,
                          double share, Job *job) {
  const Shape s = SHAPE[LAYERS - 1];
  const int size = after_pool(s) * after_pool(s);
  vec f[s.out];
  float logits[LANES * CLASSES], dy[CLASSES][LANES];
  head(n, f, logits);
  __builtin_memset(dy, 0, sizeof dy);
  for (int i = 0; i < lanes; i++) {
    const float *y = logits + i * CLASSES;
    double e[CLASSES];
    int best;
    const double sum = softmax(y, e, &best);
    job->loss += logarithm(sum) + ((double)y[best] - (double)y[labels[i]]);
    job->correct += best == labels[i];
    for (int k = 0; k < CLASSES; k++) dy[k][i] = (float)((e[k] / sum - (k == labels[i])) * share);
  }
  vec gradient[CLASSES];
  __builtin_memcpy(gradient, dy, sizeof gradient);
  for (int k = 0; k < CLASSES; k++) {
    n->bias_sums[k] += gradient[k];
    for (int c = 0; c < s.out; c++)
      n->weight_sums[k * s.out + c] = fused(gradient[k], f[c], n->weight_sums[k * s.out + c]);
  }
  vec *to = s.pool ? n->pooled : dnorm(n, block);
  for (int c = 0; c < s.out; c++) {
    vec d = zero();
    for (int k = 0; k < CLASSES; k++) d = fused(gradient[k], all(n->weight[k * s.out + c]), d);
    d /= (float)size;
    for (int i = 0; i < size; i++) to[c * size + i] = d;
  }
  if (s.pool) pool_backward(s, n->layer[LAYERS - 1].norm_out, to, dnorm(n, block));
}

// ---- images ------------------------------------------------------------------------------------

// A position's nearest whole number, or the border's where that is outside or not a number.
INLINE vec pixel(vec position) {
  const vec least = all(-1), most = all(SIDE);
  position = choose(position > least, position, least);
  return nearest(choose(position < most, position, most));
}

// Warp a block's images, (SIDE + 2, SIDE + 2) with a border of background, by their affine maps,
// (lanes, 2, 3), to the nearest pixel: (SIDE, SIDE) of what `pixel_lut` makes of it. Without maps
// the images stay as they are.
static void warp(const Network *n, const uint8_t *images, const int64_t *order, const float *maps,
                  int lanes, vec *to) {
  const Shape s = SHAPE[0];
  const float centre = (SIDE - 1) / 2.0f;
  const int row_of = SIDE + 2, tside = framed(s);
  const uint8_t *image[LANES];
  float m[6][LANES];
  for (int i = 0; i < LANES; i++) {
    const int j = i < lanes ? i : 0;
    image[i] = images + order[j] * row_of * row_of + row_of + 1;
    for (int k = 0; k < 6; k++) m[k][i] = maps ? maps[6 * j + k] : k == 0 || k == 4;
  }
  vec v[6];
  __builtin_memcpy(v, m, sizeof v);
  for (int y = 0; y < SIDE; y++) {
    const vec py = all((float)y - centre);
    const vec column = fused(v[1], py, v[2] + centre), row = fused(v[4], py, v[5] + centre);
    for (int x = 0; x < SIDE; x++) {
      const vec px = all((float)x - centre);
      const vec at = pixel(fused(v[3], px, row)) * (float)row_of + pixel(fused(v[0], px, column));
      const ivec index = __builtin_convertvector(at, ivec);
      int32_t place[LANES];
      __builtin_memcpy(place, &index, sizeof place);
      float *value = (float *)(to + (y + s.pad) * tside + x + s.pad);
      for (int i = 0; i < LANES; i++) value[i] = n->pixel_lut[image[i][place[i]]];
    }
  }
}

// ---- a step ------------------------------------------------------------------------------------

INLINE int lanes_left(int64_t count, int64_t first) {
  return count - first < LANES ? (int)(count - first) : LANES;
}

// Set the sums over a step's images to zero.
static void clear(const Layer *l) {
  const Shape s = l->shape;
  __builtin_memset(l->weight_sums, 0, sizeof(vec) * (size_t)(s.out * s.in * s.kernel * s.kernel));
  __builtin_memset(l->scale_sums, 0, sizeof(part) * (size_t)l->affine);
  __builtin_memset(l->shift_sums, 0, sizeof(part) * (size_t)l->affine);
}

// Sum over the lanes: (count) of `vec` or `part` to (count) of float.
static void collect(const vec *sums, float *gradient, int count) {
  for (int i = 0; i < count; i++) gradient[i] = total(sums[i]);
}

static void collect_parts(const part *sums, float *gradient, int count) {
  for (int i = 0; i < count; i++) gradient[i] = total_part(sums[i]);
}

// Layer by layer, each block through all that comes before the next statistics of the batch.
static void forward(const Network *n, int blocks, int count) {
  for (int i = 0; i < LAYERS; i++) {
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

// Layer by layer back, each block through all that comes before the next means over the batch.
static void backward(const Network *n, int first, int blocks, int count) {
  for (int i = LAYERS - 1; i >= 0; i--) {
    const Layer *l = n->layer + i;
    if (l->norm == BATCH)
      batch_means(l, count);
    else
      group_means(l);
    for (int b = 0; b < blocks; b++) {
      backward_norm(n, i, b, mask(lanes_left(count, first + b * LANES)));
      if (i > 0 && blocks > 1) forward_norm(n, i - 1, b);
      backward_conv(n, i, b);
      if (i > 0) gradient_sums(n, l - 1, b);
    }
  }
}

// Gradients of the mean loss of `count` images under their maps.
static void step(const Network *n, Job *job, const int64_t *order, const float *maps, int count) {
  const int out = SHAPE[LAYERS - 1].out, together = n->layer[0].norm == BATCH;
  for (int i = 0; i < LAYERS; i++)
    pack(n->layer + i), pack_transposed(n->layer + i), clear(n->layer + i);
  __builtin_memset(n->weight_sums, 0, sizeof(vec) * CLASSES * (size_t)out);
  __builtin_memset(n->bias_sums, 0, sizeof(vec) * CLASSES);
  // Where images are independent, each block goes all the way while it is in the cache.
  const int blocks = together ? (count + LANES - 1) / LANES : 1;
  for (int first = 0; first < count; first += blocks * LANES) {
    for (int b = 0; b < blocks; b++) {
      const int start = first + b * LANES;
      warp(n, job->images, order + start, maps + 6 * start, lanes_left(count, start),
            (vec *)input(n, 0, b));
    }
    forward(n, blocks, count);
    for (int b = 0; b < blocks; b++) {
      const int start = first + b * LANES, lanes = lanes_left(count, start);
      uint8_t label[LANES];
      for (int i = 0; i < lanes; i++) label[i] = job->labels[order[start + i]];
      forward_norm(n, LAYERS - 1, b);
      head_backward(n, b, label, lanes, 1.0 / count, job);
      gradient_sums(n, n->layer + LAYERS - 1, b);
    }
    backward(n, first, blocks, count);
  }
  for (int i = 0; i < LAYERS; i++) {
    const Layer *l = n->layer + i;
    const Shape s = l->shape;
    collect(l->weight_sums, l->weight_gradient, s.out * s.in * s.kernel * s.kernel);
    collect_parts(l->scale_sums, l->scale_gradient, l->affine);
    collect_parts(l->shift_sums, l->shift_gradient, l->affine);
  }
  collect(n->weight_sums, n->weight_gradient, CLASSES * out);
  collect(n->bias_sums, n->bias_gradient, CLASSES);
}

// SGD with momentum, as PyTorch has it, on the gradient and that of l1·Σ|p|.
static void update(const Network *n, const Job *job) {
  const vec lr = all(-job->lr), momentum = all(job->momentum), l1 = all(job->l1);
  for (int64_t i = 0; i < (n->count + LANES - 1) / LANES; i++) {
    const vec p = n->parameters[i];
    const vec g = n->gradients[i] + choose(p > zero(), l1, choose(p < zero(), -l1, zero()));
    const vec v = fused(momentum, n->velocity[i], g);
    n->velocity[i] = v;
    n->parameters[i] = fused(lr, job->nesterov ? fused(momentum, v, g) : v, p);
  }
}

// ---- what Python calls -------------------------------------------------------------------------

// Whether this library's known answer was seen to come out: Python's, once per process.
int checked;

int64_t job_size(void) { return sizeof(Job); }

// Bytes of memory, from a multiple of 64 on, that `train` or, without a velocity, `predict` needs.
int64_t memory_for(const Job *job) {
  Network n = {0};
  return lay_out(&n, job, blocks_of(job), 0);
}

// One epoch: a step for every `batch_size` images of `order`, the last as many as are left.
// Changes parameters, velocity and statistics; adds the losses and the images classified correctly.
void train(Job *job) {
  const uint64_t before = enter();
  Network n;
  set_up(&n, job);
  __builtin_memcpy(n.velocity, job->velocity, sizeof(float) * (size_t)n.count);
  for (int64_t first = 0; first < job->count; first += job->batch_size) {
    const int64_t left = job->count - first;
    step(&n, job, job->order + first, job->maps + 6 * first,
         (int)(left < job->batch_size ? left : job->batch_size));
    update(&n, job);
  }
  __builtin_memcpy(job->parameters, n.parameters, sizeof(float) * (size_t)n.count);
  __builtin_memcpy(job->velocity, n.velocity, sizeof(float) * (size_t)n.count);
  leave(before);
}

// Logits (count, CLASSES) of the images in `order`, in evaluation mode.
void predict(Job *job) {
  const uint64_t before = enter();
  Network n;
  set_up(&n, job);
  for (int i = 0; i < LAYERS; i++) pack(n.layer + i);
  for (int64_t first = 0; first < job->count; first += LANES) {
    const int lanes = lanes_left(job->count, first);
    warp(&n, job->images, job->order + first, 0, lanes, n.layer[0].input);
    for (int i = 0; i < LAYERS; i++) {
      const Layer *l = n.layer + i;
      forward_conv(&n, i, 0);
      if (l->norm == BATCH)
        running_statistics(l);
      else
        moments(l, 0), group_statistics(l);
      forward_norm(&n, i, 0);
    }
    vec f[SHAPE[LAYERS - 1].out];
    float logits[LANES * CLASSES];
    head(&n, f, logits);
    __builtin_memcpy(job->logits + first * CLASSES, logits,
                     sizeof(float) * CLASSES * (size_t)lanes);
  }
  leave(before);
}

// Softmax of the logits, (count, CLASSES); adds the losses and the images classified correctly.
void score(Job *job) {
  const uint64_t before = enter();
  for (int64_t i = 0; i < job->count; i++) {
    const float *y = job->logits + i * CLASSES;
    double e[CLASSES];
    int best;
    const double sum = softmax(y, e, &best);
    job->loss += logarithm(sum) + ((double)y[best] - (double)y[job->labels[i]]);
    job->correct += best == job->labels[i];
    for (int k = 0; k < CLASSES; k++)
      job->probabilities[i * CLASSES + k] = (float)(e[k] / sum);
  }
  leave(before);
}
