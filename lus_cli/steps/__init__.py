"""The pipeline, one module per command, in the order they are run.

phantom        makes a synthetic study              -> exams/
import_videos  turns video files into an exam tree  -> exams/
prepare        frames, videos, DICOM, MATLAB files  -> videos.h5, split.json, figures/
train          videos.h5, split.json                -> runs/<run>/
crossval       videos.h5, split.json                -> crossvals/<name>/, runs/<name>-r1-f1/, ...
evaluate       runs/<run>/, videos.h5               -> runs/<run>/evaluation/<split>/
               several runs                         -> comparisons/<runs>/
attention      runs/<run>/, videos.h5, exams/       -> runs/<run>/attention/
predict        runs/<run>/, any videos              -> runs/<run>/predictions/<number>/
               (a cross-validation, too: evaluate and predict then write to crossvals/<name>/)
export         runs/<run>/                          -> runs/<run>/export/
devices        lists devices, checks that they compute correctly; run it first on a Mac

A step is `run(config, progress) -> Result`. Steps never import each other and print nothing: they
call `progress` and return a `Result`, which the command line shows.
"""
