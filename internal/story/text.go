package story

// grammarText is the grammar of the stories. syntax.go explains the notation.
//
// Three rules keep it learnable and its entropy exact. Whatever is introduced
// early (names, the pet, colours, counts, the place) comes back later, so that a
// reader who remembers has nothing left to guess there. Every choice shows in
// the text before the next one, so that a text has one derivation. And no
// choice's probabilities depend on what was chosen before.
const grammarText = `
list person: subj obj poss
  Anna/she/her/her Lily/she/her/her Mia/she/her/her Rosa/she/her/her Ella/she/her/her Nora/she/her/her
  Lucy/she/her/her Ruby/she/her/her Ivy/she/her/her Clara/she/her/her Emma/she/her/her Zoe/she/her/her
  Tom/he/him/his Ben/he/him/his Max/he/him/his Sam/he/him/his Leo/he/him/his Jack/he/him/his
  Finn/he/him/his Hugo/he/him/his Oscar/he/him/his Tim/he/him/his Noah/he/him/his Paul/he/him/his
list relative:
  mother father sister brother grandmother grandfather aunt uncle teacher cousin
list trait:
  kind brave clever shy funny gentle proud curious cheerful patient quiet lazy
list pet: baby
  cat/kitten dog/puppy rabbit/bunny duck/duckling horse/foal goat/kid hen/chick pig/piglet
list petname:
  Misty Pip Socks Biscuit Pepper Button Shadow Fluffy Rusty Patch Bella Coco
list size:
  tiny small little big huge fat thin fluffy
list color:
  red blue green yellow pink purple white black gray silver golden brown
list toy:
  ball kite drum doll ship train bear robot whistle lantern scarf puzzle
list container:
  basket box bag bucket jar sack bowl cart
list weather:
  sunny windy rainy cloudy snowy foggy warm cold
list time:
  morning afternoon evening day
list praise:
  great lovely pretty funny good fine special wonderful
list bird: many
  robin/robins crow/crows swan/swans parrot/parrots sparrow/sparrows goose/geese pigeon/pigeons falcon/falcons
list wild: many
  fox/foxes rat/rats squirrel/squirrels turtle/turtles hedgehog/hedgehogs badger/badgers lizard/lizards wolf/wolves
list clothes:
  hat coat dress shirt sweater cape belt jacket
list food:
  soup bread pie honey cheese rice jam cake pasta salad
list place: at
  beach/at garden/in forest/in farm/at market/at kitchen/in library/in river/at meadow/in school/at harbor/at castle/in
list thing by place: many
  beach: shell/shells crab/crabs pebble/pebbles seagull/seagulls
  garden: carrot/carrots tomato/tomatoes rose/roses snail/snails
  forest: acorn/acorns mushroom/mushrooms leaf/leaves nut/nuts
  farm: egg/eggs pumpkin/pumpkins onion/onions potato/potatoes
  market: lemon/lemons candle/candles apple/apples melon/melons
  kitchen: cookie/cookies spoon/spoons cup/cups pancake/pancakes
  library: book/books map/maps picture/pictures poem/poems
  river: frog/frogs stone/stones stick/sticks worm/worms
  meadow: butterfly/butterflies clover/clovers daisy/daisies beetle/beetles
  school: pencil/pencils crayon/crayons ruler/rulers sticker/stickers
  harbor: rope/ropes net/nets anchor/anchors flag/flags
  castle: coin/coins key/keys crown/crowns shield/shields
list spot by place:
  beach: under_the_old_boat behind_the_rocks beside_the_cave
  garden: under_the_bench behind_the_shed beside_the_pond
  forest: under_the_oak behind_the_bushes beside_the_trail
  farm: under_the_hay behind_the_barn beside_the_fence
  market: under_the_table behind_the_stall beside_the_fountain
  kitchen: under_the_sink behind_the_stove beside_the_window
  library: under_the_desk behind_the_shelf beside_the_lamp
  river: under_the_bridge behind_the_willow beside_the_mill
  meadow: under_the_flowers behind_the_hill beside_the_path
  school: under_the_chair behind_the_door beside_the_piano
  harbor: under_the_pier behind_the_crates beside_the_tower
  castle: under_the_stairs behind_the_curtain beside_the_throne

story: <opening>\n<walk>\n{5:<collect>|3:<lost>|3:<trade>|3:<share>}\n<ending>

opening:
  {3:Once upon a time|Long ago|2:One <weather=weather> <time=time>} {2:there was|there lived} a <trait=trait> child
  {named|called} <hero=person>. [^hero.subj] had a <size=size> <color=color> <pet=pet> {named|called} <petname=petname>.
  {[petname]|The [pet]} {liked|loved} {to eat <petfood=food>|the {garden|house|sun|rain|snow}|[hero.poss] <toy=toy>}.
  That day [hero] wore a <wearcolor=color> <wear=clothes> and a <wearcolor2=color> <wear2=clothes-wear>.

walk:
  {2:Soon|Later|After a while} [hero] {2:went|walked|ran} to the <place=place> with {[petname]|[hero.poss] [pet]|the [color] [pet]}.
  {2:On the way|Near the [place]|In the distance} {they|[hero.subj]} {2:saw|met|passed} a <birdcolor=color> <bird=bird>
  {and|with} a <wildsize=size> <wild=wild>.{3:| "{Look|See}, [petname]! A [birdcolor] [bird]!" {said|cried|shouted} [hero].|
  The [wild] {2:ran away|hid|looked at [petname]}.}

collect:
  [hero] {wanted|hoped} to find <thing=thing@place.many> for [hero.poss] <relative=relative>.
  {2:Soon|After a while|At last} [hero] {2:found|saw} <n=4,5,6,7,8> [thing#n] <spot=spot@place> and put them in a <boxcolor=color> <box=container>.
  Then <friend=person-hero> came, a <trait2=trait> {neighbor|friend|child}.
  "{2:What do you have|What is in your [box]|How many [thing.many] do you have}, [hero]?" {asked|said} [friend].
  "I have [n] [thing.many] for my [relative]," {2:said|answered|replied} [hero].
  {<more>|<fewer>}{3:| <eaten>}
  [hero] {gave|showed} the [thing.many] to [hero.poss] [relative] {2:at home|later}.
  "{2:Thank you|Well done|How nice}, [hero]! {Now we have|I can see} [n] [thing#n] from the [place]," {said|cried} [hero.poss] [relative].

more: [friend] {gave|handed|brought} [hero.obj] <m=1,2,3,4> more. Now there were <n:=n+m> [thing.many] in the [boxcolor] [box].
fewer: [hero] {gave|handed|offered} [friend] <m=1,2> of them. Now there were only <n:=n-m> left in the [boxcolor] [box].
eaten: But [petname] the [pet] {2:took|dropped|lost} one, so only <n:=n-1> [thing#n] remained.

lost:
  [^hero.subj] {played|was playing} with a <toysize=size> <toycolor=color> <toy=toy> from [hero.poss] <relative=relative>.
  {2:Suddenly|Then|But} the [toy] {2:was gone|was lost|disappeared}.
  [hero] {looked|searched} <spot=spot@place>, but it was not there.
  Then <friend=person-hero> came, a <trait2=trait> {neighbor|friend|child}.
  "{2:Have you seen|Did you see|Can you find} my [toycolor] [toy]?" {asked|said} [hero].
  "{2:Yes|Maybe}, {[petname]|your [pet]|the [wild]|the [bird]} {took|carried} it to the <boxcolor=color> <box=container> <spot2=spot@place-spot>," {2:said|answered|replied} [friend].
  They {2:ran|hurried|looked} [spot2] and {2:saw|found} the [toysize] [toycolor] [toy], {2:in|under|beside} the [boxcolor] [box].
  "{2:Thank you|Well done|How nice}, [friend]! {Now I can show|I will show} the [toy] to my [relative]," {said|cried} [hero].

trade:
  There [hero.subj] met <friend=person-hero>, a <trait2=trait> {neighbor|friend|child}.
  "I {like|love} your {[wearcolor] [wear]|[wearcolor2] [wear2]}, [hero]!" {said|cried} [friend].
  [hero] had a <toysize=size> <toycolor=color> <toy=toy> and [friend] had a <size2=size> <color2=color-toycolor> <toy2=toy-toy>.
  "{2:Shall we trade|Do you want to trade|Can I have your [toy2]}?" {asked|said} [hero].
  "{2:Yes|Sure|Of course}, I {like|love|want} your [toycolor] [toy]," {2:said|answered|replied} [friend].
  So [friend] {got|took} the [toycolor] [toy] and [hero] {got|took} the [color2] [toy2].
  {Then|After that|For a while} they {played|sat} <spot=spot@place>.
  "{My|This} [size2] [toy2] is <trait3=praise>," {said|cried} [hero]. "{And|But} the [toysize] [toy] is <trait4=praise> too," {2:said|answered|replied} [friend].

share:
  Two friends were there, <friend=person-hero> and <friend2=person-hero-friend>. [friend] was <trait2=trait> and [friend2] was <trait3=trait-trait2>.
  Together they {found|collected} <n=6,9,12> <thing=thing@place.many> <spot=spot@place>.
  "{How shall we share them|Who gets the [n] [thing.many]}?" {asked|said} [friend2].
  "We are three, so each of us gets <m:=n/3> [thing.many]," {2:said|answered|replied} [hero].
  But then [friend] gave one of [friend.poss] [thing.many] to {[hero]. Now [hero]|[friend2]. Now [friend2]} had <n:=m+1> and [friend] had <n:=m-1>.
  "You are so [trait2], [friend]!" {said|cried} [hero].

ending:
  {2:In the evening|When the sun went down|Before bed} {they|[hero] and [petname]} ate <food=food> {and|with} <food2=food-food>.
  "{2:I will not forget|I liked|We saw} the [birdcolor] [bird] and the [wildsize] [wild]," {2:said|whispered} [hero].
  {2:[friend] was a [trait2] friend|It was a <praise=praise> day [place.at] the [place]}.
  {Then|At last|Soon} the [trait] child and the [size] [pet] {2:fell asleep|went to bed}.
  {That night|All night|In bed} [hero] dreamed of <k=2,3,4,5,6,7,8,9> <dream=color> <dreamwild=wild.many>,
  <k2=2,3,4,5,6,7,8,9> <dreamsize=size> <dreambird=bird.many> and a <dreamtrait=trait> <dreampet=pet.baby>.
`
