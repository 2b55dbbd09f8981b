// The most multiply-adds that a processor can do: twelve sums that stay in its registers. PRODUCTS
// of WIDTH numbers a round; KEEP stops the compiler from doing them in advance. bench.py puts WIDTH
// before this text.

#if defined(__aarch64__)
#define KEEP(r) __asm__ volatile("" : "+w"(r))
#else
#define KEEP(r) __asm__ volatile("" : "+v"(r))
#endif
#define PRODUCTS 12

typedef float reg __attribute__((vector_size(4 * WIDTH)));

long products(void) { return PRODUCTS * WIDTH; }

float peak(long rounds) {
  reg sum[PRODUCTS], factor = (reg){0} + 0.999f;
  for (int i = 0; i < PRODUCTS; i++) sum[i] = (reg){0} + (float)i;
  for (long n = 0; n < rounds; n++) {
    _Pragma("clang loop unroll(full)") for (int i = 0; i < PRODUCTS; i++) {
#if defined(__FMA__) || defined(__aarch64__)
      sum[i] = __builtin_elementwise_fma(sum[i], factor, factor);
#else
      sum[i] = sum[i] * factor + factor;
#endif
      KEEP(sum[i]);
    }
  }
  float all = 0;
  for (int i = 0; i < PRODUCTS; i++) all += sum[i][0];
  return all;
}
