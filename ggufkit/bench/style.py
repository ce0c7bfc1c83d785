"""How the page of a result looks: light and dark, on a phone and on a desk."""

CSS = """
:root{color-scheme:light dark;--bg:#fcfcfb;--fg:#1b1d21;--dim:#5d636e;--line:#dcdee3;--card:#f1f2f4;
--c0:#2f6fdd;--c1:#c2571a;--c2:#2b8a57;--c3:#8a4fc4;--c4:#a8862a;--c5:#c23a6b;
--good:#1c7a45;--bad:#b3261e;--warn:#8a5a00}
@media(prefers-color-scheme:dark){:root{--bg:#15171b;--fg:#e6e8ec;--dim:#9aa1ad;--line:#333840;--card:#1f2228;
--c0:#6f9ff0;--c1:#e8915a;--c2:#5fbf8d;--c3:#b78ae6;--c4:#d3b45c;--c5:#ea7ea3;
--good:#6fce98;--bad:#f28b82;--warn:#e5b567}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:72rem;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans","Noto Sans CJK SC","PingFang SC",
"Microsoft YaHei",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.15rem;margin:2rem 0 .6rem}
h3{font-size:.95rem;margin:1.1rem 0 .3rem;color:var(--dim);font-weight:600}
h4{font-size:.9rem;margin:.2rem 0 .5rem}
header p,.note,footer{color:var(--dim);font-size:.875rem;margin:.2rem 0}
footer{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:.8rem}
.m0{--c:var(--c0)}.m1{--c:var(--c1)}.m2{--c:var(--c2)}.m3{--c:var(--c3)}.m4{--c:var(--c4)}.m5{--c:var(--c5)}
.cards{display:grid;
grid-template-columns:repeat(auto-fit,minmax(min(100%,17rem),1fr));gap:.8rem;margin-top:1.2rem}
.card{background:var(--card);border-left:4px solid var(--c);border-radius:6px;padding:.7rem .9rem}
.card h2{margin:0 0 .5rem;font-size:1rem}
.card small{color:var(--dim);font-weight:400}
dl{margin:0}
dl div{display:flex;justify-content:space-between;gap:1rem}
dt{color:var(--dim)}
dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums;text-align:right}
.warnings{margin:1rem 0 0;padding:.6rem .9rem .6rem 2rem;border:1px solid var(--warn);border-radius:6px;
color:var(--warn);font-size:.9rem}
.bar{display:grid;grid-template-columns:minmax(5rem,12rem) 1fr 4.5rem;gap:.6rem;
align-items:center;margin:.15rem 0}
.bar .name{font-size:.85rem;line-height:1.2}
.bar b,.course b{font-variant-numeric:tabular-nums;text-align:right;font-size:.85rem}
@media(max-width:40rem){.bar{grid-template-columns:1fr 3.5rem;row-gap:.1rem}.bar .name{grid-column:1/-1}}
.track{position:relative;height:1.1rem;background:var(--card);border-radius:3px}
.track i{position:absolute;inset:0 auto 0 0;background:var(--c);border-radius:3px}
.track u{position:absolute;top:50%;height:0;border-top:2px solid var(--fg);opacity:.65}
.track s{position:absolute;top:-2px;bottom:-2px;margin-left:-1px;border-left:2px dashed var(--bad)}
.key{display:inline-block;width:1.4rem;height:0;vertical-align:middle;margin-right:.3rem}
.key.limit{border-top:2px dashed var(--bad)}
.key.range{border-top:2px solid var(--fg);opacity:.65}
.course{display:flex;align-items:flex-end;gap:3px;overflow-x:auto;padding-bottom:.2rem}
.course div{flex:1 1 2.6rem;min-width:2.2rem;max-width:4.5rem;text-align:center}
.course b{display:block;font-size:.7rem;font-weight:600;text-align:center}
.course span{display:flex;align-items:flex-end;height:7rem}
.course i{display:block;width:100%;background:var(--c);border-radius:3px 3px 0 0;min-height:1px}
.course small{color:var(--dim);font-size:.7rem}
blockquote{margin:.3rem 0 .8rem;padding:.1rem 0 .1rem .9rem;border-left:3px solid var(--line);
white-space:pre-wrap}
.answers{display:grid;
grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:.8rem;align-items:start}
.column{border-top:3px solid var(--c);min-width:0}
article pre{margin:.2rem 0 0;font:inherit;white-space:pre-wrap}
.column article{background:var(--card);border-radius:6px;padding:.6rem .8rem;margin-bottom:.6rem}
.told{margin:0 0 .3rem;color:var(--dim);font-size:.8rem}
.error{margin:.2rem 0;color:var(--bad);font-size:.85rem}
mark{background:none;font-weight:700;color:var(--dim)}
mark.pass{color:var(--good)}mark.fail{color:var(--bad)}
details{margin:.2rem 0;color:var(--dim);font-size:.85rem}
summary{cursor:pointer}
"""
"""The style sheet."""
