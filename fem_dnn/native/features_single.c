/* `features.c` in single precision. */

#undef REAL
#define REAL float
#define NAMED(name) name##_single

#include "features.c"
