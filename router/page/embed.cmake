# cmake -DIN=index.html -DOUT=index_html.cc -P embed.cmake: a file's bytes as C++.
file(READ "${IN}" bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR count "${digits} / 2")
string(REGEX REPLACE "(..)" "\\\\x\\1" escaped "${bytes}")
# Lines of 64 bytes: a string's pieces are joined by the compiler.
string(REPEAT "...." 64 line)
string(REGEX REPLACE "(${line})" "\\1\"\n    \"" escaped "${escaped}")
file(WRITE "${OUT}" "#include <cstddef>

namespace switchyard::router {

extern const char kIndexHtml[];
extern const size_t kIndexHtmlBytes;
const char kIndexHtml[] =
    \"${escaped}\";
const size_t kIndexHtmlBytes = ${count};

}  // namespace switchyard::router
")
