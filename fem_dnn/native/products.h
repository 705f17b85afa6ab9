/* Products of matrices: small ones here, large ones by the BLAS.

   C (I x J) = alpha A B, or that added to C, whose rows are ldc numbers apart. Of A and B rows or
   columns lie in memory as they are. A BLAS packs both factors first, which takes as long as
   multiplying them where they are small. */

#ifdef __AVX512F__
#define BYTES 64
#elif defined __AVX__
#define BYTES 32
#else
#define BYTES 16
#endif
#define WIDTH ((long)(BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(BYTES)));
typedef REAL loose __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));

typedef struct {
    const REAL *at;
    long row, column; /* entry (i, k) is at[i row + k column]; one of these is 1 */
} matrix;

typedef void (*gemm_function)(const char *, const char *, const int *, const int *, const int *,
                              const REAL *, const REAL *, const int *, const REAL *, const int *,
                              const REAL *, REAL *, const int *);

/* Whether A stays in the processor's second cache, and three vectors of every row of B in its first:
   then nothing but B needs to be packed. */
#define MOST 512
#define IS_SMALL(I, K) ((I) * (K) <= 32768 && (K) <= MOST)

static inline vec load(const REAL *from) { return *(const loose *)from; }

/* Some lanes of a vector, from `skip` on, into memory. */
static inline __attribute__((always_inline)) void
put(vec value, REAL alpha, int add, long skip, REAL *to)
{
    value *= alpha;
    if (skip == 0) {
        if (add)
            value += load(to);
        *(loose *)to = value;
        return;
    }
    for (long lane = skip; lane < WIDTH; ++lane)
        to[lane] = add ? to[lane] + value[lane] : value[lane];
}

/* R rows of C (1 or 4) by V vectors (1 to 3): as many sums as there are registers. */
static inline __attribute__((always_inline)) void
tile(const int R, const int V, long K, REAL alpha, const REAL *a, long row, long column,
     const REAL *b, long ldb, int add, long skip, REAL *c, long ldc)
{
    vec c00 = {0}, c01 = {0}, c02 = {0}, c10 = {0}, c11 = {0}, c12 = {0};
    vec c20 = {0}, c21 = {0}, c22 = {0}, c30 = {0}, c31 = {0}, c32 = {0};
    for (long k = 0; k < K; ++k, a += column, b += ldb) {
        const vec b0 = load(b), b1 = V > 1 ? load(b + WIDTH) : b0;
        const vec b2 = V > 2 ? load(b + 2 * WIDTH) : b0;
#define TERMS(r)                   \
    {                              \
        const REAL x = a[r * row]; \
        c##r##0 += x * b0;         \
        if (V > 1)                 \
            c##r##1 += x * b1;     \
        if (V > 2)                 \
            c##r##2 += x * b2;     \
    }
        TERMS(0)
        if (R > 1) {
            TERMS(1)
            TERMS(2)
            TERMS(3)
        }
    }
#define RESULTS(r)                                                \
    {                                                             \
        put(c##r##0, alpha, add, skip, c + r * ldc);              \
        if (V > 1)                                                \
            put(c##r##1, alpha, add, 0, c + r * ldc + WIDTH);     \
        if (V > 2)                                                \
            put(c##r##2, alpha, add, 0, c + r * ldc + 2 * WIDTH); \
    }
    RESULTS(0)
    if (R > 1) {
        RESULTS(1)
        RESULTS(2)
        RESULTS(3)
    }
}

/* V vectors of columns of C, from column j on; of the first vector the lanes from `skip` on.
   packed: room for as many columns of B. */
static inline __attribute__((always_inline)) void
panel(const int V, long I, long K, REAL alpha, matrix A, matrix B, long j, int add, long skip,
      REAL *c, long ldc, REAL *packed)
{
    const REAL *b = B.at + j * B.column;
    long ldb = B.row, i = 0;
    c += j;
    if (B.column > 1) {
        for (long k = 0; k < K; ++k)
            for (long lane = 0; lane < V * WIDTH; ++lane)
                packed[k * V * WIDTH + lane] = b[k * B.row + lane * B.column];
    } else if (K * ldb >= 4096) { /* more than the first cache holds, or rows that collide in it */
        for (long k = 0; k < K; ++k)
            for (long lane = 0; lane < V * WIDTH; ++lane)
                packed[k * V * WIDTH + lane] = b[k * B.row + lane];
    }
    if (B.column > 1 || K * ldb >= 4096) {
        b = packed;
        ldb = V * WIDTH;
    }
    for (; i + 4 <= I; i += 4)
        tile(4, V, K, alpha, A.at + i * A.row, A.row, A.column, b, ldb, add, skip, c + i * ldc,
             ldc);
    for (; i < I; ++i)
        tile(1, V, K, alpha, A.at + i * A.row, A.row, A.column, b, ldb, add, skip, c + i * ldc,
             ldc);
}

static void small_product(long I, long J, long K, REAL alpha, matrix A, matrix B, int add, REAL *c,
                          long ldc);

/* Where B has fewer columns than a vector: C' = B' A', some rows of A at a time. */
static void few_columns(long I, long J, long K, REAL alpha, matrix A, matrix B, int add, REAL *c,
                        long ldc)
{
    REAL rows[WIDTH * MOST];
    for (long first = 0; first < I; first += MOST) {
        const long count = I - first < MOST ? I - first : MOST;
        const matrix some = {A.at + first * A.row, A.column, A.row};
        const matrix transposed = {B.at, B.column, B.row};
        if (count >= WIDTH)
            small_product(J, count, K, alpha, transposed, some, 0, rows, MOST);
        else
            for (long j = 0; j < J; ++j)
                for (long i = 0; i < count; ++i) {
                    REAL sum = 0;
                    for (long k = 0; k < K; ++k)
                        sum += transposed.at[j * transposed.row + k * transposed.column] *
                               some.at[k * some.row + i * some.column];
                    rows[j * MOST + i] = alpha * sum;
                }
        for (long i = 0; i < count; ++i)
            for (long j = 0; j < J; ++j) {
                REAL *to = c + (first + i) * ldc + j;
                *to = rows[j * MOST + i] + (add ? *to : 0);
            }
    }
}

static void small_product(long I, long J, long K, REAL alpha, matrix A, matrix B, int add, REAL *c,
                          long ldc)
{
    if (J < WIDTH) {
        few_columns(I, J, K, alpha, A, B, add, c, ldc);
        return;
    }
    REAL packed[MOST * 3 * WIDTH];
    long j = 0;
    for (; j + 3 * WIDTH <= J; j += 3 * WIDTH)
        panel(3, I, K, alpha, A, B, j, add, 0, c, ldc, packed);
    if (j + 2 * WIDTH <= J) {
        panel(2, I, K, alpha, A, B, j, add, 0, c, ldc, packed);
        j += 2 * WIDTH;
    } else if (j + WIDTH <= J) {
        panel(1, I, K, alpha, A, B, j, add, 0, c, ldc, packed);
        j += WIDTH;
    }
    if (j < J) /* the last lanes of a vector that begins among the columns before */
        panel(1, I, K, alpha, A, B, J - WIDTH, add, j - (J - WIDTH), c, ldc, packed);
}

/* C = alpha A B, or that added to C. */
static void product(gemm_function gemm, long I, long J, long K, REAL alpha, matrix A, matrix B,
                    int add, REAL *c, long ldc)
{
    if (IS_SMALL(I, K)) {
        small_product(I, J, K, alpha, A, B, add, c, ldc);
        return;
    }
    /* The BLAS counts columns where we count rows: C' = B' A'. Where there is one row, how far it
       is to the next is anything, but must not be less than the row is long. */
    const int m = (int)J, n = (int)I, k = (int)K, out = (int)ldc;
    const int left = (int)(B.column == 1 ? (B.row > J ? B.row : J) : B.column);
    const int right = (int)(A.column == 1 ? (A.row > K ? A.row : K) : A.column);
    const REAL beta = add ? 1 : 0;
    gemm(B.column == 1 ? "N" : "T", A.column == 1 ? "N" : "T", &m, &n, &k, &alpha, B.at, &left,
         A.at, &right, &beta, c, &out);
}
